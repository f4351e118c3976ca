//! What the files say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use config::api;
use config::model::{InboundConfig, NewTrunk, OutboundConfig};
use serde_json::{Map, Value, json};

use super::fields::{Faults, Fields};
use crate::client::body;
use crate::client::failure::Failure;
use crate::client::yaml::{self, Kind, Node};

/// Fields whose values are secrets: in a file they are references to the environment.
const SECRETS: [&str; 3] = ["auth_password", "auth_token", "api_key"];

/// Everything the files declare. A section that no file has is `None`.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) trunks: Option<Vec<Trunk>>,
    pub(super) numbers: Option<Vec<Number>>,
    pub(super) agents: Option<Vec<Agent>>,
    pub(super) routing: Option<Routing>,
}

/// Where something is declared, for complaints: `site.yaml:12`.
pub(super) type Place = String;

/// A trunk.
#[derive(Debug)]
pub(super) struct Trunk {
    pub(super) place: Place,
    pub(super) name: String,
    /// The body as the API takes it, secrets and all.
    pub(super) body: Value,
    /// The configs as the API would show them: every default filled in, no secrets. Those that are
    /// left out are absent, those that are to be removed are `null`.
    pub(super) configs: BTreeMap<&'static str, Value>,
}

/// A phone number.
#[derive(Debug)]
pub(super) struct Number {
    pub(super) place: Place,
    pub(super) number: String,
    /// The name of its trunk.
    pub(super) trunk: String,
    pub(super) shareable: Option<bool>,
}

/// An agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) place: Place,
    pub(super) name: String,
    /// Its own fields, as far as they are declared.
    pub(super) fields: Map<String, Value>,
    pub(super) config: Option<Document>,
    pub(super) publish: bool,
    /// Numbers whose calls it takes; `None` leaves that alone.
    pub(super) inbound: Option<Vec<String>>,
    /// Numbers it calls from.
    pub(super) outbound: Option<Vec<String>>,
    pub(super) deploy: Option<bool>,
}

/// An object that is stored as it is written.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) value: Value,
    /// Paths of texts that came from the environment.
    pub(super) secrets: BTreeSet<String>,
}

/// The routing of inbound calls.
#[derive(Debug)]
pub(super) struct Routing {
    pub(super) place: Place,
    pub(super) workflow: Document,
    pub(super) enabled: Option<bool>,
    /// The name of the fallback agent; the outer `None` leaves it alone.
    pub(super) fallback: Option<Option<String>>,
    pub(super) fallback_version: Option<u64>,
}

/// The environment, as files see it.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Declared {
    /// Reads all files; every fault of all of them is told at once.
    pub(super) fn read(files: &[PathBuf], environment: Environment<'_>) -> Result<Self, Failure> {
        let mut reader = Reader {
            declared: Self::default(),
            faults: Faults { file: String::new(), all: Vec::new() },
            environment,
            folder: PathBuf::new(),
        };
        for file in files {
            let text = body::text(file)?;
            reader.folder = file.parent().map(Path::to_owned).unwrap_or_default();
            reader.text(&file.display().to_string(), &text);
        }
        reader.finish().map_err(|faults| Failure::Unusable(faults.join("\n")))
    }

    /// Reads one text; for tests.
    #[cfg(test)]
    pub(super) fn parse(text: &str, environment: Environment<'_>) -> Result<Self, Vec<String>> {
        let mut reader = Reader {
            declared: Self::default(),
            faults: Faults { file: String::new(), all: Vec::new() },
            environment,
            folder: PathBuf::new(),
        };
        reader.text("site.yaml", text);
        reader.finish()
    }
}

struct Reader<'a> {
    declared: Declared,
    faults: Faults,
    environment: Environment<'a>,
    /// The folder of the file that is being read: files it names are found from there.
    folder: PathBuf,
}

impl Reader<'_> {
    fn text(&mut self, name: &str, text: &str) {
        name.clone_into(&mut self.faults.file);
        match yaml::parse(text) {
            Err(fault) => self.faults.extend(vec![fault]),
            Ok(documents) => documents.into_iter().for_each(|node| self.document(node)),
        }
    }

    fn document(&mut self, mut node: Node) {
        if matches!(node.kind, Kind::Null) {
            return;
        }
        if let Err(faults) = node.fill(self.environment) {
            return self.faults.extend(faults);
        }
        let Some(mut fields) = Fields::of(&node, "", &mut self.faults) else { return };
        let sections = ["trunks", "phone_numbers", "agents"].map(|name| (name, fields.any(name)));
        let routing = fields.any("inbound_routing");
        fields.finish(&mut self.faults);
        for (name, section) in sections {
            let Some(section) = section else { continue };
            self.open(name);
            match &section.kind {
                Kind::Null => {}
                Kind::List(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.item(name, &format!("{name}[{index}]"), item);
                    }
                }
                _ => self.faults.add(section.line, name, "must be a list"),
            }
        }
        if let Some(node) = routing {
            self.routing(node);
        }
    }

    fn open(&mut self, section: &str) {
        let declared = &mut self.declared;
        match section {
            "trunks" => drop(declared.trunks.get_or_insert_default()),
            "phone_numbers" => drop(declared.numbers.get_or_insert_default()),
            _ => drop(declared.agents.get_or_insert_default()),
        }
    }

    fn item(&mut self, section: &str, path: &str, node: &Node) {
        self.refuse_literal_secrets(node, path);
        let Some(fields) = Fields::of(node, path, &mut self.faults) else { return };
        match section {
            "trunks" => self.trunk(node, path, fields),
            "phone_numbers" => self.number(node, fields),
            _ => self.agent(node, fields),
        }
    }

    fn place(&self, node: &Node) -> Place {
        format!("{}:{}", self.faults.file, node.line)
    }

    fn trunk(&mut self, node: &Node, path: &str, mut fields: Fields<'_>) {
        let place = self.place(node);
        let name = fields.name("name", &mut self.faults);
        let value = node.json();
        for (at, why) in api::misfits("NewTrunk", &value) {
            self.faults.add(node.line_of(&at), &spelled(path, &at), why);
        }
        let typed = serde_json::from_value::<NewTrunk>(value.clone());
        let checked = typed.as_ref().ok().map(NewTrunk::validate);
        match (&typed, checked) {
            (Err(why), _) => self.faults.add(node.line, path, why.to_string()),
            (_, Some(Err(invalid))) => {
                let at: Vec<Value> = invalid.field.split('.').map(Value::from).collect();
                self.faults.add(node.line_of(&at), &spelled(path, &at), invalid.message);
            }
            _ => {}
        }
        let mut configs = BTreeMap::new();
        if let Some(stored) = value.get("inbound_config") {
            configs.insert("inbound_config", as_shown::<InboundConfig>(stored));
        }
        if let Some(stored) = value.get("outbound_config") {
            configs.insert("outbound_config", as_shown::<OutboundConfig>(stored));
        }
        let trunk = Trunk { place, name, body: value, configs };
        let all = self.declared.trunks.get_or_insert_default();
        if let Some(other) = all.iter().find(|other| other.name == trunk.name) {
            let why = format!("is declared at {} too", other.place);
            self.faults.add(node.line, &format!("{path}.name"), why);
        }
        all.push(trunk);
    }

    fn number(&mut self, node: &Node, mut fields: Fields<'_>) {
        let place = self.place(node);
        let number = fields.name("phone_number", &mut self.faults);
        let trunk = fields.name("trunk", &mut self.faults);
        let shareable = fields.flag("outbound_shareable", &mut self.faults);
        let path = fields.path("phone_number");
        fields.finish(&mut self.faults);
        self.check_number(node, &path, &number);
        let all = self.declared.numbers.get_or_insert_default();
        if let Some(other) = all.iter().find(|other| other.number == number) {
            self.faults.add(node.line, &path, format!("is declared at {} too", other.place));
        }
        all.push(Number { place, number, trunk, shareable });
    }

    fn check_number(&mut self, node: &Node, path: &str, number: &str) {
        if let Err(why) = number.parse::<config::model::E164>() {
            self.faults.add(node.line, path, why.to_string());
        }
    }

    fn agent(&mut self, node: &Node, mut fields: Fields<'_>) {
        let place = self.place(node);
        let name = fields.name("name", &mut self.faults);
        let mut own = Map::new();
        for field in ["description", "active", "is_demo", "metadata"] {
            own.extend(fields.any(field).map(|value| (field.to_owned(), value.json())));
        }
        let mut whole = own.clone();
        whole.insert("name".to_owned(), json!(name));
        for (at, why) in api::misfits("NewAgent", &Value::Object(whole)) {
            let path = fields.path("");
            self.faults.add(node.line_of(&at), &spelled(path.trim_end_matches('.'), &at), why);
        }
        let inline = fields.any("config");
        let file = fields.text("config_file", &mut self.faults);
        let config = self.document_of((&fields.path("config"), inline), file, node);
        let publish = fields.flag("publish", &mut self.faults).unwrap_or(true);
        let inbound = fields.texts("inbound_numbers", &mut self.faults);
        let outbound = fields.texts("outbound_numbers", &mut self.faults);
        let deploy = fields.flag("deploy_as_sip", &mut self.faults);
        let path = fields.path("name");
        fields.finish(&mut self.faults);
        for number in inbound.iter().chain(&outbound).flatten() {
            self.check_number(
                node,
                &format!("{}.{number}", path.trim_end_matches(".name")),
                number,
            );
        }
        let all = self.declared.agents.get_or_insert_default();
        if let Some(other) = all.iter().find(|other| other.name == name) {
            self.faults.add(node.line, &path, format!("is declared at {} too", other.place));
        }
        let agent = Agent { place, name, fields: own, config, publish, inbound, outbound, deploy };
        if !publish && agent.numbers().next().is_some() {
            let why = "numbers can have published versions only, and this says publish: false";
            self.faults.add(node.line, &path, why);
        }
        self.declared.agents.get_or_insert_default().push(agent);
    }

    fn routing(&mut self, node: &Node) {
        let place = self.place(node);
        let Some(mut fields) = Fields::of(node, "inbound_routing", &mut self.faults) else {
            return;
        };
        let inline = fields.any("workflow_definition");
        let file = fields.text("workflow_file", &mut self.faults);
        let path = fields.path("workflow_definition");
        let workflow = self.document_of((&path, inline), file, node);
        let enabled = fields.flag("enabled", &mut self.faults);
        let fallback = match fields.any("fallback_agent") {
            None => None,
            Some(Node { kind: Kind::Null, .. }) => Some(None),
            Some(_) => Some(fields.text("fallback_agent", &mut self.faults)),
        };
        let version = fields.any("fallback_agent_version").map(Node::json);
        fields.finish(&mut self.faults);
        let Some(workflow) = workflow else {
            return self.faults.add(node.line, &path, "is needed, or workflow_file");
        };
        if let Some(other) = &self.declared.routing {
            let why = format!("is declared at {} too", other.place);
            return self.faults.add(node.line, "inbound_routing", why);
        }
        let fallback_version = version.as_ref().and_then(Value::as_u64);
        if fallback_version.is_none() && version.is_some_and(|version| !version.is_null()) {
            let path = "inbound_routing.fallback_agent_version";
            self.faults.add(node.line, path, "must be a number");
        }
        self.declared.routing =
            Some(Routing { place, workflow, enabled, fallback, fallback_version });
    }

    /// An object that stands here or in a file of its own.
    fn document_of(
        &mut self,
        (path, inline): (&str, Option<&Node>),
        file: Option<String>,
        around: &Node,
    ) -> Option<Document> {
        match (inline, file) {
            (Some(_), Some(_)) => {
                self.faults.add(around.line, path, "is given here and as a file");
                None
            }
            (Some(node), None) => self.checked(node, path),
            (None, Some(file)) => {
                let before = self.faults.file.clone();
                let found = self.document_in(&self.folder.join(file));
                self.faults.file = before;
                found
            }
            (None, None) => None,
        }
    }

    fn document_in(&mut self, file: &Path) -> Option<Document> {
        self.faults.file = file.display().to_string();
        let text = match body::text(file) {
            Ok(text) => text,
            Err(failure) => {
                let why = failure.text().trim().trim_start_matches("error: ").to_owned();
                self.faults.all.push(why);
                return None;
            }
        };
        match yaml::parse(&text).as_deref_mut() {
            Err(fault) => self.faults.extend(vec![fault.clone()]),
            Ok([node]) => {
                if let Err(faults) = node.fill(self.environment) {
                    self.faults.extend(faults);
                    return None;
                }
                self.refuse_literal_secrets(node, "");
                return self.checked(node, "");
            }
            Ok(_) => self.faults.add(1, "", "must hold one document"),
        }
        None
    }

    fn checked(&mut self, node: &Node, path: &str) -> Option<Document> {
        if !matches!(node.kind, Kind::Map(_)) {
            self.faults.add(node.line, path, "must be an object");
            return None;
        }
        let mut secrets = BTreeSet::new();
        collect_secrets(node, "", &mut secrets);
        Some(Document { value: node.json(), secrets })
    }

    /// A secret in a file would be in a repository soon.
    fn refuse_literal_secrets(&mut self, node: &Node, path: &str) {
        match &node.kind {
            Kind::Map(entries) => {
                for (key, value) in entries {
                    let path = yaml::joined(path, &key.name);
                    let literal = matches!(&value.kind, Kind::Text(text) if !text.is_empty())
                        && !value.from_environment;
                    if literal && SECRETS.contains(&key.name.as_str()) {
                        let why =
                            "is a secret: write it as ${NAME} and set that in the environment";
                        self.faults.add(value.line, &path, why);
                    }
                    self.refuse_literal_secrets(value, &path);
                }
            }
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.refuse_literal_secrets(item, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn finish(self) -> Result<Declared, Vec<String>> {
        if self.faults.all.is_empty() { Ok(self.declared) } else { Err(self.faults.all) }
    }
}

impl Agent {
    /// Every number it is to have, in either slot.
    pub(super) fn numbers(&self) -> impl Iterator<Item = &String> {
        self.inbound.iter().chain(&self.outbound).flatten()
    }
}

/// Paths of texts that came from the environment, as [`super::difference`] names them.
fn collect_secrets(node: &Node, path: &str, into: &mut BTreeSet<String>) {
    match &node.kind {
        Kind::Text(_) if node.from_environment => drop(into.insert(path.to_owned())),
        Kind::Map(entries) => {
            for (key, value) in entries {
                collect_secrets(value, &yaml::joined(path, &key.name), into);
            }
        }
        Kind::List(items) => {
            for (index, item) in items.iter().enumerate() {
                collect_secrets(item, &format!("{path}[{index}]"), into);
            }
        }
        _ => {}
    }
}

/// A config as the API would return it; `null` stays `null`.
fn as_shown<T: serde::de::DeserializeOwned + serde::Serialize>(config: &Value) -> Value {
    let typed = serde_json::from_value::<Option<T>>(config.clone()).ok().flatten();
    typed.and_then(|typed| serde_json::to_value(typed).ok()).unwrap_or_default()
}

/// `trunks[0]` and `["inbound_config", "allowed_addresses", 1]` as one path.
fn spelled(path: &str, at: &[Value]) -> String {
    at.iter().fold(path.to_owned(), |path, part| match part {
        Value::String(name) => yaml::joined(&path, name),
        other => format!("{path}[{other}]"),
    })
}
