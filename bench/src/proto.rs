//! Generated clients and servers.
#![allow(missing_docs, clippy::all, clippy::too_many_lines, unused_qualifications)]

/// etcd's API, as far as the driver uses it.
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// The least that a gRPC call can be.
pub mod echo {
    tonic::include_proto!("echo");
}
