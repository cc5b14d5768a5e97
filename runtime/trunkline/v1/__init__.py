"""The API, generated from protos/trunkline/v1 by `make gen`."""
