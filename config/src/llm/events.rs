//! The event stream of a completion, purely: bytes in, pieces of text out.
//!
//! Lines and events as the WHATWG HTML standard §9.2.6 says; the data of each event is a chunk of a
//! chat completion, and `[DONE]` is the last.

use std::collections::VecDeque;

use serde::Deserialize;

use super::ModelError;
use crate::limits::LLM_EVENT_BYTES;

/// Reads one stream.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    /// The last byte was a CR: an LF after it belongs to it.
    after_cr: bool,
    pieces: VecDeque<String>,
    over: bool,
}

/// A chunk of a completion; only what is read.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    /// In a stream.
    #[serde(default)]
    delta: Option<Message>,
    /// In a reply that is no stream.
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
}

impl Events {
    /// Takes what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        for &byte in bytes {
            match byte {
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => self.end_line()?,
                _ => self.line.push(byte),
            }
            self.after_cr = byte == b'\r';
            if self.line.len() + self.data.len() > LLM_EVENT_BYTES.value_usize() {
                return Err(ModelError::Broken);
            }
        }
        Ok(())
    }

    /// The next piece of text.
    pub(super) fn poll_piece(&mut self) -> Option<String> {
        self.pieces.pop_front()
    }

    /// Whether the completion has said that it is complete.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }

    /// Reads a reply that is no stream: one whole completion.
    pub(super) fn push_whole(&mut self, body: &[u8]) -> Result<(), ModelError> {
        self.take_chunk(body)?;
        self.over = true;
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), ModelError> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return if data.is_empty() { Ok(()) } else { self.take_event(&data) };
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        Ok(())
    }

    fn take_event(&mut self, data: &[u8]) -> Result<(), ModelError> {
        if data.trim_ascii() == b"[DONE]" {
            self.over = true;
            return Ok(());
        }
        self.take_chunk(data)
    }

    fn take_chunk(&mut self, json: &[u8]) -> Result<(), ModelError> {
        let chunk: Chunk = serde_json::from_slice(json).map_err(|_| ModelError::Broken)?;
        if chunk.error.is_some_and(|error| !error.is_null()) {
            return Err(ModelError::Failed);
        }
        let Some(choice) = chunk.choices.into_iter().next() else { return Ok(()) };
        let content = choice.delta.or(choice.message).and_then(|message| message.content);
        self.pieces.extend(content.filter(|text| !text.is_empty()));
        match choice.finish_reason.as_deref() {
            Some("content_filter") => return Err(ModelError::Refused),
            Some(_) => self.over = true,
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: &str, step: usize) -> Result<(String, bool), ModelError> {
        let mut events = Events::default();
        let mut text = String::new();
        for bytes in stream.as_bytes().chunks(step) {
            events.push(bytes)?;
            while let Some(piece) = events.poll_piece() {
                text.push_str(&piece);
            }
        }
        Ok((text, events.is_over()))
    }

    fn chunk(text: &str) -> String {
        format!("data: {}\n\n", serde_json::json!({"choices": [{"delta": {"content": text}}]}))
    }

    #[test]
    fn pieces_come_out_however_the_bytes_are_cut() {
        let stream = format!(
            ": comment\n\ndata: {{\"choices\":[{{\"delta\":{{\"role\":\"assistant\"}}}}]}}\n\n{}{}\
             event: x\nid: 7\n\ndata: [DONE]\n\n",
            chunk("Grüße, "),
            chunk("Welt")
        );
        for step in [1, 2, 3, 7, 1_000] {
            assert_eq!(read(&stream, step), Ok(("Grüße, Welt".to_owned(), true)), "{step}");
            let returns = stream.replace('\n', "\r\n");
            assert_eq!(read(&returns, step), Ok(("Grüße, Welt".to_owned(), true)), "{step}");
        }
    }

    #[test]
    fn a_finish_reason_is_an_end_too() {
        let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
        assert_eq!(read(&(chunk("a") + end), 9), Ok(("a".to_owned(), true)));
        assert_eq!(read(&chunk("a"), 9), Ok(("a".to_owned(), false)));
        let filtered = end.replace("length", "content_filter");
        assert_eq!(read(&filtered, 9), Err(ModelError::Refused));
    }

    #[test]
    fn what_is_no_completion_is_broken_and_what_says_so_has_failed() {
        assert_eq!(read("data: {\"choices\":[{]}\n\n", 9), Err(ModelError::Broken));
        assert_eq!(read("data: nonsense\n\n", 9), Err(ModelError::Broken));
        let error = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n";
        assert_eq!(read(error, 9), Err(ModelError::Failed));
        let endless = "x".repeat(LLM_EVENT_BYTES.value_usize() + 1);
        assert_eq!(read(&endless, 4_096), Err(ModelError::Broken));
    }

    #[test]
    fn a_reply_that_is_no_stream_is_read_whole() {
        let mut events = Events::default();
        let body = serde_json::json!({"choices": [{"message": {"content": "all"}}]}).to_string();
        events.push_whole(body.as_bytes()).unwrap();
        assert_eq!((events.poll_piece(), events.is_over()), (Some("all".to_owned()), true));
    }
}
