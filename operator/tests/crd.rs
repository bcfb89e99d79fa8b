//! The CRD that is checked in is the one that this operator means.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use annulus_operator::crd;

const CHECKED_IN: &str = include_str!("../../crds/keyvalueclusters.annulus.dev.yaml");
const IN_CHART: &str = include_str!("../../charts/annulus/files/keyvalueclusters.annulus.dev.yaml");

const HINT: &str = "run: annulus-operator crd | tee crds/keyvalueclusters.annulus.dev.yaml \
                    > charts/annulus/files/keyvalueclusters.annulus.dev.yaml";

#[test]
fn the_crd_is_up_to_date() {
    let meant = crd::yaml().unwrap();
    assert!(CHECKED_IN == meant, "crds/ is out of date; {HINT}");
    assert!(IN_CHART == meant, "the chart's CRD is out of date; {HINT}");
}

/// `kubectl apply` notes the object in an annotation, and annotations end at 256 KiB.
#[test]
fn kubectl_can_apply_it() {
    let json = serde_json::to_string(&crd::definition()).unwrap();
    assert!(json.len() < 200 << 10, "{} bytes", json.len());
}
