//! Reading a company's website, on behalf of a customer who named it.

use serde::{Deserialize, Serialize};

use super::html;
use crate::fetch::{FetchError, FetchRequest, Fetcher};

/// Types of pages that are read.
const PAGES: &[&str] = &["text/html", "application/xhtml+xml", "text/plain"];

/// What a website says of the company.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Site {
    /// Where the page was in the end.
    pub(crate) url: String,
    /// Its title.
    pub(crate) title: String,
    /// What it says of itself to search engines.
    pub(crate) description: String,
    /// Its headings.
    pub(crate) headings: Vec<String>,
    /// Its text.
    pub(crate) text: String,
}

/// Why a website was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SiteError {
    /// It was not fetched.
    #[error("the website {0}")]
    Fetch(#[from] FetchError),
    /// It answered, with this status.
    #[error("the website answered with status {0}")]
    Status(u16),
}

impl SiteError {
    /// Whether reading it later may help.
    pub(crate) const fn is_passing(self) -> bool {
        match self {
            Self::Fetch(error) => error.is_passing(),
            Self::Status(status) => status == 429 || status >= 500,
        }
    }
}

/// Reads the page at `url`.
pub(crate) async fn read_site(fetcher: &Fetcher, url: &str) -> Result<Site, SiteError> {
    let request = FetchRequest::get(url).or_plain_http().only(PAGES);
    let reply = fetcher.fetch(request).await?;
    if !reply.status.is_success() {
        return Err(SiteError::Status(reply.status.as_u16()));
    }
    let page = match reply.content_type().as_str() {
        "text/plain" => html::read(&reply.text().replace('<', "&lt;")),
        _ => html::read(&reply.text()),
    };
    Ok(Site {
        url: reply.url,
        title: page.title,
        description: page.description,
        headings: page.headings,
        text: page.text,
    })
}
