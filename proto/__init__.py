"""The contracts between the services: protobuf messages, gRPC stubs and the names of the events.

`*_pb2*` are generated from the `.proto` files alongside them by `python -m proto.generate`.
"""
