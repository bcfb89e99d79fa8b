//! What the end-to-end tests and the demo share: a cluster on a real Kubernetes, a workload with a ledger, a verdict.

pub mod kvc;
pub mod latencies;
pub mod ledger;
pub mod probe;
pub mod workload;
