//! Turns a core module that carries component types into a component:
//! `amends-componentize MODULE COMPONENT`. A tool of its own, so that building the plugins does not
//! build the host.

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(module), Some(component), None) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        anyhow::bail!("usage: amends-componentize MODULE COMPONENT");
    };
    let bytes = std::fs::read(&module).with_context(|| format!("cannot read {module}"))?;
    let encoded = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(wit_component::ComponentEncoder::encode)
        .with_context(|| format!("{module} cannot be turned into a component"))?;
    std::fs::write(&component, encoded).with_context(|| format!("cannot write {component}"))
}
