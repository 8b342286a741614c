"""The contracts between the services: protobuf messages, gRPC stubs and the names of the events.

`*_pb2*` are generated from the `.proto` files beside them by `python -m proto.generate`.
"""
