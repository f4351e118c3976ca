//! Bodies of requests: from files, from flags, or a file changed by flags.

use std::io::Read as _;
use std::path::Path;

use config::secret::Secret;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::yaml;

/// The largest file that is read, in bytes.
pub(crate) const FILE_BYTES: u64 = 4 << 20;

/// A file as text; `-` is standard input.
pub(crate) fn text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_BYTES + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text))
    };
    let read =
        read.map_err(|why| Failure::Unusable(format!("{} cannot be read: {why}", path.display())))?;
    if u64::try_from(read).map_or(true, |read| read > FILE_BYTES) {
        let why = format!("{} has more than {FILE_BYTES} bytes", path.display());
        return Err(Failure::Unusable(why));
    }
    Ok(text)
}

/// One JSON or YAML document, with its `${NAME}`s taken from the environment.
pub(crate) fn document(path: &Path) -> Result<Value, Failure> {
    let text = text(path)?;
    let name = path.display().to_string();
    let explain = |faults: Vec<yaml::Fault>| {
        let lines: Vec<String> = faults.iter().map(|fault| fault.in_file(&name)).collect();
        Failure::Unusable(lines.join("\n"))
    };
    let mut documents = yaml::parse(&text).map_err(|fault| explain(vec![fault]))?;
    let (Some(mut node), true) = (documents.pop(), documents.is_empty()) else {
        return Err(Failure::Unusable(format!("{name} must hold one document")));
    };
    node.fill(&yaml::environment).map_err(explain)?;
    Ok(node.json())
}

/// The same, which must be an object.
pub(crate) fn object(path: &Path) -> Result<Value, Failure> {
    let value = document(path)?;
    if value.is_object() {
        return Ok(value);
    }
    Err(Failure::Unusable(format!("{} must hold an object", path.display())))
}

/// A password from a file, without the line end that editors leave.
pub(crate) fn password(path: &Path) -> Result<Secret<String>, Failure> {
    let whole = Secret::new(text(path)?);
    Ok(Secret::new(whole.expose().trim_end_matches(['\r', '\n']).to_owned()))
}

/// An object on the command line.
pub(crate) fn inline(name: &str, text: &str) -> Result<Value, Failure> {
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(object) => Ok(Value::Object(object)),
        Err(why) => Err(Failure::Unusable(format!("{name} is no JSON object: {why}"))),
    }
}

/// Sets one field of a body, making the objects on the way to it: `outbound_config.address`.
pub(crate) fn set(body: &mut Value, path: &str, value: impl Into<Value>) {
    let mut at = body;
    for name in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(entries) = at else { return };
        at = entries.entry(name).or_insert(Value::Null);
    }
    *at = value.into();
}

/// Sets one field when the flag was given.
pub(crate) fn set_if(body: &mut Value, path: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        set(body, path, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_set_wherever_they_are() {
        let mut body = json!({"inbound_config": null, "name": "old"});
        set(&mut body, "name", "new");
        set(&mut body, "inbound_config.allowed_addresses", json!(["192.0.2.1"]));
        set_if(&mut body, "outbound_config.address", None::<&str>);
        assert_eq!(
            body,
            json!({"inbound_config": {"allowed_addresses": ["192.0.2.1"]}, "name": "new"})
        );
    }

    #[test]
    fn a_body_is_read_from_json_and_from_yaml() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("body");
        for text in [r#"{"name": "a", "list": [1, true]}"#, "name: a\nlist:\n  - 1\n  - true\n"] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(object(&file).unwrap(), json!({"name": "a", "list": [1, true]}));
        }
        std::fs::write(&file, "- 1\n").unwrap();
        assert!(object(&file).is_err());
    }
}
