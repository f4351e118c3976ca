//! The settings file: what an operator decides once per machine, before the first call.
//!
//! Two stages. `source` reads the file and the environment into located values and knows nothing
//! of their meaning; `sections` resolves them into plain structs in which no `Option` means
//! "default"; `rules` then checks what only two settings together can get wrong. Nothing stops at
//! the first fault: [`SettingsErrors`] lists all of them, each with the place it stands at.
//!
//! ```text
//!   trunkline.toml ──┐                                     ┌── rules ──► Settings
//!                    ├──► source: located values ──► sections
//!   TRUNKLINE_A__B ──┘      (the environment wins)         └──► SettingsErrors, every one at once
//! ```
//!
//! Invariant: a `Settings` that exists has passed every rule, so its readers never check again.
//! Every key is shown with its meaning and default in `config/trunkline.example.toml`, which a test
//! holds equal to [`Settings::default`].

mod fault;
mod macros;
mod read;
mod rules;
mod sections;
mod source;
mod store_url;
mod value;

use std::path::Path;

pub use crate::model::AgentEnding;
pub use fault::{Origin, SettingsError, SettingsErrors};
pub use sections::{
    Advertise, AgentSettings, ApiSettings, CallSettings, Digest, EventSettings, FetchSettings,
    LlmSettings, LogFormat, ManagedSettings, MediaSettings, NodeSettings, ObserveSettings,
    RoutingSettings, Settings, SipSettings, StoreSettings, Strangers, WebhookSettings,
    WorkflowSettings,
};
pub use store_url::StoreUrl;

use read::Reader;
use source::Source;

impl Settings {
    /// Reads the settings file at `path` (if any) and the environment over it.
    ///
    /// A variable named `TRUNKLINE_<SECTION>__<KEY>` (upper case) overrides the key of that section;
    /// lists are separated by commas there. Other variables are ignored.
    ///
    /// # Errors
    ///
    /// Every fault found, in the order of the file and then of the variables: unreadable file, bad
    /// TOML, unknown section or key (with the nearest known name), wrong type, value out of range,
    /// and settings that contradict each other.
    pub fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsErrors> {
        let Some(path) = path else { return Self::parse("", "settings", env) };
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &name, env),
            Err(why) => Err(SettingsErrors::unreadable(&name, &why)),
        }
    }

    /// Reads settings from text; `name` is what errors call the file.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`], less the unreadable file.
    pub fn parse(
        text: &str,
        name: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SettingsErrors> {
        let (source, mut errors) = Source::read(text, name, env);
        let mut reader = Reader::new(source);
        let settings = Self::read(&mut reader);
        rules::check(&settings, &mut reader);
        errors.extend(reader.finish());
        if errors.is_empty() { Ok(settings) } else { Err(SettingsErrors::new(errors)) }
    }
}

#[cfg(test)]
mod tests;
