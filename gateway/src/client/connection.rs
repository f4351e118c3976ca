//! Where the API is, and with which key it is asked.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use config::secret::Secret;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Url};

use super::failure::Failure;
use super::rest::Rest;

/// The environment variable that holds a key.
const KEY: &str = "TRUNKLINE_API_KEY";

/// The longest key file that is read, in bytes: a key has about a hundred.
const KEY_BYTES: u64 = 4_096;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How to reach the API.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub struct Connection {
    /// Where the API is.
    #[arg(
        long,
        value_name = "URL",
        env = "TRUNKLINE_URL",
        default_value = "http://127.0.0.1:8080",
        global = true
    )]
    pub url: String,
    /// File with the API key, `-` for standard input; without it the environment variable
    /// TRUNKLINE_API_KEY holds the key.
    #[arg(long, value_name = "FILE", env = "TRUNKLINE_API_KEY_FILE", global = true)]
    pub key_file: Option<PathBuf>,
    /// The organisation to act for (its id): needed with a personal token (`pat_…`) only.
    #[arg(long, value_name = "ID", env = "TRUNKLINE_ORGANISATION", global = true)]
    pub organisation: Option<String>,
    /// Seconds a request may take; a workflow that is waited for takes up to 70.
    #[arg(long, value_name = "SECONDS", default_value_t = 75, global = true,
        value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,
    /// PEM file with an issuer to trust besides those of the system.
    #[arg(long, value_name = "FILE", env = "TRUNKLINE_CA_FILE", global = true)]
    pub ca_file: Option<PathBuf>,
    /// Send the key over plain HTTP to another machine, where everyone on the way can read it.
    #[arg(long, global = true)]
    pub allow_plain_http: bool,
    /// Print JSON, as the API returned it, instead of a table.
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
}

impl Connection {
    /// A client with the key, ready to ask.
    ///
    /// # Errors
    /// [`Failure::Unusable`] when the URL, the key or a file cannot be used.
    pub(crate) fn open(&self) -> Result<Rest, Failure> {
        let base = base(&self.url, self.allow_plain_http)?;
        let key = self.key()?;
        let mut headers = HeaderMap::new();
        let bearer = Secret::new(format!("Bearer {}", key.expose()));
        let mut authorization = HeaderValue::from_str(bearer.expose())
            .map_err(|_| unusable("the key holds characters that no key has"))?;
        authorization.set_sensitive(true);
        headers.insert(reqwest::header::AUTHORIZATION, authorization);
        if let Some(id) = &self.organisation {
            let id = HeaderValue::from_str(id)
                .map_err(|_| unusable("--organisation holds characters that no id has"))?;
            headers.insert(HeaderName::from_static("x-anyreach-org"), id);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("trunkline/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .timeout(Duration::from_secs(self.timeout));
        if base.scheme() == "http" {
            // A proxy would see the key; over TLS it only sees where the connection goes.
            builder = builder.no_proxy();
        }
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path).map_err(|why| unreadable(path, &why))?;
            let authorities = Certificate::from_pem_bundle(&pem)
                .map_err(|_| unusable(&format!("{} holds no certificate", path.display())))?;
            builder = builder.tls_certs_merge(authorities);
        }
        let client = builder.build().map_err(|why| unusable(&format!("no client: {why}")))?;
        Ok(Rest::new(client, base))
    }

    fn key(&self) -> Result<Secret<String>, Failure> {
        let text = match &self.key_file {
            Some(path) => read_key(path)?,
            None => Secret::new(std::env::var(KEY).map_err(|_| {
                unusable("no API key: name a file with --key-file, or set TRUNKLINE_API_KEY")
            })?),
        };
        let key = text.expose().trim();
        if key.is_empty() {
            return Err(unusable("the API key is empty"));
        }
        Ok(Secret::new(key.to_owned()))
    }
}

fn read_key(path: &Path) -> Result<Secret<String>, Failure> {
    let mut text = Secret::new(String::new());
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(KEY_BYTES).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(KEY_BYTES).read_to_end(&mut bytes))
    };
    read.map_err(|why| unreadable(path, &why))?;
    let bytes = Secret::new(bytes);
    if let Ok(key) = std::str::from_utf8(bytes.expose()) {
        text = Secret::new(key.to_owned());
    }
    Ok(text)
}

/// The API's address; plain HTTP stays on this machine unless that is asked for.
fn base(text: &str, allow_plain_http: bool) -> Result<Url, Failure> {
    let url = Url::parse(text).map_err(|why| unusable(&format!("--url {text}: {why}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(unusable("--url must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(unusable("--url must not hold a user or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(unusable("--url must not hold a query"));
    }
    if url.scheme() == "http" && !is_here(&url) && !allow_plain_http {
        return Err(unusable(
            "over plain http:// the key could be read on the way: use https://, or say \
             --allow-plain-http",
        ));
    }
    Ok(url)
}

fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn unusable(why: &str) -> Failure {
    Failure::Unusable(why.to_owned())
}

fn unreadable(path: &Path, why: &std::io::Error) -> Failure {
    Failure::Unusable(format!("{} cannot be read: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_leaves_this_machine_only_when_asked_for() {
        for here in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080/"] {
            assert!(base(here, false).is_ok(), "{here}");
        }
        let there = "http://api.example.com";
        assert!(base(there, false).is_err());
        assert!(base(there, true).is_ok());
        assert!(base("https://api.example.com/trunkline/", false).is_ok());
        assert!(base("http://127.0.0.1.example.com", false).is_err());
    }

    #[test]
    fn an_address_holds_no_secret_and_no_query() {
        for bad in [
            "ftp://127.0.0.1",
            "127.0.0.1:8080",
            "https://user:secret@api.example.com",
            "https://api.example.com/?key=1",
            "",
        ] {
            assert!(base(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_file_may_end_in_a_line_end_and_must_hold_something() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let key = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let connection = Connection {
                url: String::new(),
                key_file: Some(file.clone()),
                organisation: None,
                timeout: 1,
                ca_file: None,
                allow_plain_http: false,
                json: false,
            };
            connection.key().map(|key| key.expose().clone())
        };
        assert_eq!(key("ak_1.2\n").unwrap(), "ak_1.2");
        assert!(key("\n").is_err());
    }
}
