//! What a run reaches beyond this program: hosts on the public internet, and the language model.

use axum::http::{HeaderName, HeaderValue, Method, header};
use config::fetch::{FetchReply, FetchRequest, Fetcher};
use config::limits::WORKFLOW_OUTPUT_BYTES;
use config::llm::{self, Model, Prompt};
use config::workflows::Running;

use super::http::{HttpAnswer, HttpRequest};

/// What a run reaches beyond this program. What goes wrong is told in words for the workflow's author,
/// without addresses inside the network.
pub trait Outside: Send + Sync {
    /// Makes a request. Any answer is an answer, whatever its status.
    fn fetch(&self, request: HttpRequest) -> Running<'_, Result<HttpAnswer, String>>;

    /// Asks the language model.
    fn ask(&self, prompt: String) -> Running<'_, Result<String, String>>;
}

/// What the model is told about the prompts of workflows.
const TASK: &str = "You fill in one field of an automated workflow. Reply with the text of the field \
    and nothing else: no greeting, no explanation, no quotation marks around it.";

/// The guarded client, and the model if the settings name one.
#[derive(Clone)]
pub struct World {
    fetcher: Fetcher,
    model: Option<Model>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("model", &self.model.is_some()).finish_non_exhaustive()
    }
}

impl World {
    /// Reaches hosts through this client, and this model.
    #[must_use]
    pub const fn new(fetcher: Fetcher, model: Option<Model>) -> Self {
        Self { fetcher, model }
    }
}

impl Outside for World {
    fn fetch(&self, request: HttpRequest) -> Running<'_, Result<HttpAnswer, String>> {
        Box::pin(async move {
            let reply = self.fetcher.fetch(outgoing(request)?).await;
            reply.map(answer).map_err(|error| format!("the URL {error}"))
        })
    }

    fn ask(&self, prompt: String) -> Running<'_, Result<String, String>> {
        Box::pin(async move {
            let Some(model) = &self.model else {
                return Err("${ … } asks a language model, and none is configured".to_owned());
            };
            let answer = model.ask(Prompt::new(TASK, prompt)).await;
            let whole = match answer {
                Ok(answer) => llm::whole(answer).await,
                Err(error) => Err(error),
            };
            whole.map(|text| text.trim().to_owned()).map_err(|error| error.to_string())
        })
    }
}

fn outgoing(request: HttpRequest) -> Result<FetchRequest, String> {
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| "the method cannot be used".to_owned())?;
    // What a step may not give anyway is not read.
    let most = WORKFLOW_OUTPUT_BYTES.value_usize();
    let mut out = FetchRequest::new(method, request.url).within(request.timeout).at_most(most);
    let (body, usual) = request.body.unzip();
    let mut kind = usual.map(HeaderValue::from_static);
    for (name, text) in request.headers {
        let field = HeaderName::from_bytes(name.as_bytes()).ok().filter(FetchRequest::may_set);
        let value = HeaderValue::from_str(&text).ok();
        match field.zip(value) {
            None => return Err(format!("the header {name} cannot be sent")),
            // The step's own says better what the body is.
            Some((field, value)) if body.is_some() && field == header::CONTENT_TYPE => {
                kind = Some(value);
            }
            Some((field, value)) => out = out.header(field, value),
        }
    }
    Ok(match body.zip(kind) {
        Some((body, kind)) => out.body(kind, body),
        None => out,
    })
}

fn answer(reply: FetchReply) -> HttpAnswer {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = reply.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    HttpAnswer {
        status: reply.status.as_u16(),
        headers: headers.collect(),
        body: reply.body.to_vec(),
    }
}
