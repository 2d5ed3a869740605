# An image that trains: docker build --tag IMAGE .
# For GPUs: docker build --build-arg EXTRA=cuda --tag IMAGE .
FROM python:3.12-slim

ARG EXTRA=tpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
WORKDIR /tensorgame

# The libraries change less often than the code, and are a layer of their own.
COPY pyproject.toml README.md LICENSE ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['$EXTRA'], sep='\n')" \
    > requirements.txt && pip install --requirement requirements.txt

COPY . .
RUN pip install --no-deps --editable .

# In this form python is process 1 and gets the signals of the container.
ENTRYPOINT ["python", "train.py"]
