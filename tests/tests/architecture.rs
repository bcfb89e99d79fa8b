//! Habits that are tests: which crate may depend on which, and what the algorithms stay free of.

use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Dependencies of every workspace member, by package name.
fn dependencies() -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let manifest = "../Cargo.toml";
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path", manifest])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    let normal = |dependency: &&serde_json::Value| dependency["kind"].is_null();
    Ok(packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            (name(package), dependencies.filter(normal).map(name).collect())
        })
        .collect())
}

#[test]
fn dependencies_point_one_way() -> anyhow::Result<()> {
    let dependencies = dependencies()?;
    let forbidden: &[(&str, &[&str])] = &[
        (
            "dynamo",
            &[
                "annulus-proto",
                "annulus-node",
                "annulus-operator",
                "tokio",
                "tonic",
                "kube",
                "rand",
                "tracing",
                "anyhow",
            ],
        ),
        ("annulus-proto", &["annulus-node", "annulus-operator", "kube", "tokio"]),
        ("annulus-node", &["annulus-operator", "kube", "k8s-openapi"]),
        ("annulus-operator", &["annulus-node", "fjall"]),
        ("kubectl-annulus", &["annulus-node", "annulus-operator"]),
    ];
    for (package, never) in forbidden {
        let has = dependencies.get(*package).with_context(|| format!("there is no package {package}"))?;
        for dependency in *never {
            assert!(!has.contains(*dependency), "{package} must not depend on {dependency}");
        }
    }
    Ok(())
}

#[test]
fn the_algorithms_read_no_clock_and_no_environment() -> anyhow::Result<()> {
    let mut folders = vec![std::path::PathBuf::from("../dynamo/src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path)?;
            for word in ["SystemTime", "Instant::now", "std::env", "std::net", "std::fs", "std::thread"] {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
    assert!(files > 10, "the algorithms were not found");
    Ok(())
}
