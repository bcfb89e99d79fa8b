//! The binary.
fn main() -> anyhow::Result<()> { print!("{}", annulus_operator::crd::yaml()?); Ok(()) }
