//! What clients and people connect to: RESP, gRPC and HTTP.
