//! Asking a language model to write a text.
//!
//! The operator names an endpoint in the settings (`[llm]`); without one there is no [`Model`], and
//! whoever would ask writes from structure instead and says so. The endpoint is the operator's own
//! choice, so it may be private: the guard of [`fetch`](crate::fetch) is for customers' URLs.

mod endpoint;
mod events;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

pub use endpoint::Endpoint;

use crate::limits::LLM_PROMPT_BYTES;

/// A language model that can be asked. Clones share everything.
pub type Model = Arc<dyn LanguageModel>;

/// An answer, piece by piece as it is written. Ends after its first error.
pub type Answer = BoxStream<'static, Result<String, ModelError>>;

/// An answer that begins to come.
pub type Asking = Pin<Box<dyn Future<Output = Result<Answer, ModelError>> + Send>>;

/// Something that answers prompts.
pub trait LanguageModel: Send + Sync {
    /// Asks; the answer is there as soon as its first bytes are.
    fn ask(&self, prompt: Prompt) -> Asking;
}

/// What a model is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What it is to do, in our words.
    pub system: String,
    /// What it is to do it with: material that others wrote.
    pub user: String,
}

impl Prompt {
    /// A task and its material; of the material at most [`LLM_PROMPT_BYTES`] are kept.
    pub fn new(system: impl Into<String>, user: impl Into<String>) -> Self {
        let mut user = user.into();
        let end = user.floor_char_boundary(LLM_PROMPT_BYTES.value_usize());
        user.truncate(end);
        Self { system: system.into(), user }
    }
}

/// Why there is no answer, or no more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// It has too much to do (429 and 503).
    #[error("the language model is busy")]
    Busy,
    /// It does not take our key (401 and 403).
    #[error("the language model does not take our key")]
    Unauthorised,
    /// It does not do what it was asked.
    #[error("the language model refused the request")]
    Refused,
    /// It says that it failed.
    #[error("the language model failed")]
    Failed,
    /// The whole answer took too long.
    #[error("the language model did not answer in time")]
    TimedOut,
    /// There is no connection to it.
    #[error("the language model cannot be reached")]
    Unreachable,
    /// What it sends is not what its protocol says, ends in the middle, or is far too long.
    #[error("the language model's answer cannot be read")]
    Broken,
}

impl ModelError {
    /// Whether asking again later may help.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        !matches!(self, Self::Unauthorised | Self::Refused)
    }
}

/// Waits for an answer's end.
///
/// # Errors
/// When it ends with an error; what came before is then of no use.
pub async fn whole(mut answer: Answer) -> Result<String, ModelError> {
    let mut text = String::new();
    while let Some(piece) = answer.next().await {
        text.push_str(&piece?);
    }
    Ok(text)
}
