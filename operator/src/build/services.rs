//! Two Services: one that names each node, and one for clients.

use super::{metadata, selector};
use crate::crd::KeyValueCluster;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

/// The headless Service that gives each node its name. Nodes find each other by it before they are ready.
#[must_use]
pub fn nodes_service(cluster: &KeyValueCluster) -> Service {
    let name = cluster.name_any();
    let ports = [("peer", 7400), ("resp", 6379), ("grpc", 7379), ("http", 9090)];
    Service {
        metadata: metadata(cluster, format!("{name}-nodes")),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(selector(&name)),
            ports: Some(ports.map(port).to_vec()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The Service that clients use: any ready node serves any key.
#[must_use]
pub fn client_service(cluster: &KeyValueCluster) -> Service {
    let name = cluster.name_any();
    Service {
        metadata: metadata(cluster, name.clone()),
        spec: Some(ServiceSpec {
            selector: Some(selector(&name)),
            ports: Some([("resp", 6379), ("grpc", 7379)].map(port).to_vec()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port((name, number): (&str, i32)) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
