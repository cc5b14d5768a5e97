"""What gRPC reflection says of the protocol: the names that its callers know."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from trunkline_serve.oip.servicer import NAME
from trunkline_serve.oip.v1 import open_inference_pb2 as pb

_PACKAGE = NAME.rpartition(".")[0]


def described(files: Iterable[FileDescriptor]) -> DescriptorPool:
    """Returns a pool that describes the protocol, and the services in `files` beside it.

    A pool of its own: in the one that all share, the protocol's names would clash with those of a
    client in the same process.
    """
    pool = DescriptorPool()
    seen: set[str] = set()
    for file in files:
        _add(file, pool, seen)
    pool.Add(_renamed())
    return pool


def _add(file: FileDescriptor, pool: DescriptorPool, seen: set[str]) -> None:
    """Adds a file behind all that it imports."""
    if file.name in seen:
        return
    seen.add(file.name)
    for dependency in file.dependencies:
        _add(dependency, pool, seen)
    pool.AddSerializedFile(file.serialized_pb)


def _renamed() -> FileDescriptorProto:
    """Returns the protocol's file with the package that callers know."""
    proto = FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    ours, theirs = f".{proto.package}.", f".{_PACKAGE}."
    proto.package = _PACKAGE
    for message in proto.message_type:
        _rename_fields(message, ours, theirs)
    for method in proto.service[0].method:
        method.input_type = method.input_type.replace(ours, theirs)
        method.output_type = method.output_type.replace(ours, theirs)
    return proto


def _rename_fields(message: DescriptorProto, ours: str, theirs: str) -> None:
    for field in message.field:
        if field.type_name:
            field.type_name = field.type_name.replace(ours, theirs)
    for nested in message.nested_type:
        _rename_fields(nested, ours, theirs)
