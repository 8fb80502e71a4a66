//! The software bill of materials, for tools that look up the components.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::Command;

use serde_json::{Value, json};

use crate::linked::Linked;

/// The program's contents, as CycloneDX 1.5 in JSON. It has neither a time nor a serial number, so that
/// two builds are equal.
pub(crate) fn sbom(linked: &BTreeMap<String, Linked>) -> Result<String, Box<dyn Error>> {
    let rust = version("rustc", "--version")?;
    let glibc = version("getconf", "GNU_LIBC_VERSION")?;
    let runtime = [
        ("rust-lang", "rust", rust, "MIT OR Apache-2.0"),
        ("gnu", "glibc", glibc, "LGPL-2.1-or-later"),
    ];
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    let mut program = Value::Null;
    for (specification, one) in linked {
        let mut uses: Vec<_> = one.uses.iter().map(String::as_str).collect();
        if one.package.source.is_some() {
            components.push(library(specification, one));
        } else {
            program = component("application", specification, one);
            uses.extend(runtime.iter().map(|(_, name, ..)| *name));
        }
        dependencies.push(json!({ "ref": specification, "dependsOn": uses }));
    }
    for (vendor, name, version, licence) in runtime {
        components.push(json!({
            "type": "library",
            "bom-ref": name,
            "name": name,
            "version": version,
            "licenses": [{ "expression": licence }],
            "cpe": format!("cpe:2.3:a:{vendor}:{name}:{version}:*:*:*:*:*:*:*"),
        }));
    }
    let bill = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": program },
        "components": components,
        "dependencies": dependencies,
    });
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

fn library(specification: &str, one: &Linked) -> Value {
    let name = &one.package.name;
    // A purl has %2B for the + of build metadata, as toml's versions have it.
    let version = one.package.version.to_string().replace('+', "%2B");
    let mut library = component("library", specification, one);
    library["purl"] = format!("pkg:cargo/{name}@{version}").into();
    library["hashes"] = json!([{ "alg": "SHA-256", "content": one.sha256 }]);
    library
}

fn component(kind: &str, specification: &str, one: &Linked) -> Value {
    json!({
        "type": kind,
        "bom-ref": specification,
        "name": one.package.name,
        "version": one.package.version,
        "licenses": [{ "expression": one.package.license }],
    })
}

/// The second word of a command's output, as in `rustc 1.88.0 (…)` or `glibc 2.36`.
fn version(command: &str, argument: &str) -> Result<String, Box<dyn Error>> {
    let output = Command::new(command).arg(argument).output()?;
    let said = String::from_utf8(output.stdout)?;
    let version = said.split_whitespace().nth(1);
    Ok(version
        .ok_or_else(|| format!("{command} {argument} tells no version: {said:?}"))?
        .to_owned())
}
