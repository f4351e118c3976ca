//! What passes between the gateway and a worker: frames over the worker's standard input and output.
//!
//! ```text
//!   gateway ◄── [0]  confined and ready ◄───────────────────────────  worker
//!   gateway ──► [length][task as JSON] [length][context as JSON] ──► worker
//!   gateway ◄── [length][reply as JSON] ◄───────────────────────────  worker
//! ```
//!
//! Lengths are four bytes, most significant first, and bounded on both sides: a frame that is longer
//! ends the worker.

use std::io::{self, Read, Write};

use config::limits::{
    WORKFLOW_CODE_BYTES, WORKFLOW_CONTEXT_BYTES, WORKFLOW_DEFINITION_BYTES, WORKFLOW_OUTPUT_BYTES,
    WORKFLOW_OUTPUT_VALUES,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest frame towards a worker: a task of a whole definition's texts, or a context.
pub(crate) const LONGEST_TASK: usize = {
    let definition = 2 * WORKFLOW_DEFINITION_BYTES.value_usize();
    let context = WORKFLOW_CONTEXT_BYTES.value_usize() + WORKFLOW_CODE_BYTES.value_usize();
    if definition > context { definition } else { context }
};

/// The longest reply: what a worker gives away at once, with the words around it.
pub(crate) const LONGEST_REPLY: usize = WORKFLOW_OUTPUT_BYTES.value_usize() + 65_536;

/// Values of a reply that say what kind it is, and the lists that the others stand in.
const ENVELOPE: usize = 4;

/// One thing to compute, with how long it may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// Milliseconds after which the worker gives up by itself.
    pub(crate) limit_ms: u64,
    /// Names of steps and the ids that they stand for in the context.
    pub(crate) names: Vec<(String, String)>,
    /// What is to be computed.
    pub(crate) work: Work,
}

/// The kinds of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Work {
    /// Evaluate JSONata over the context, in order.
    Evaluate {
        /// The expressions.
        expressions: Vec<String>,
        /// Stop after the first that is true.
        until_true: bool,
    },
    /// Call `run` of this Python with the context.
    Code {
        /// The program.
        source: String,
    },
    /// Only read them.
    Check {
        /// JSONata.
        expressions: Vec<String>,
        /// Python.
        sources: Vec<String>,
    },
}

impl Work {
    /// The most JSON values of a reply: what a step may give, or one for each text that is checked.
    pub(crate) const fn most_values(&self) -> u64 {
        let texts = match self {
            Self::Evaluate { .. } | Self::Code { .. } => WORKFLOW_OUTPUT_VALUES.value_usize(),
            Self::Check { expressions, sources } => expressions.len() + sources.len(),
        };
        (texts + ENVELOPE) as u64
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The values of the expressions.
    Values {
        /// In order.
        values: Vec<Value>,
    },
    /// What `run` returned.
    Output {
        /// A JSON value.
        value: Value,
    },
    /// What is wrong with each, or nothing.
    Checked {
        /// Of the expressions, in order.
        expressions: Vec<Option<String>>,
        /// Of the Python, in order.
        sources: Vec<Option<String>>,
    },
    /// It failed.
    Threw {
        /// Why.
        message: String,
    },
}

/// A frame's length, as it goes before it.
pub(crate) fn length(frame: &[u8], longest: usize) -> io::Result<[u8; 4]> {
    match u32::try_from(frame.len()) {
        Ok(length) if frame.len() <= longest => Ok(length.to_be_bytes()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The length that was read.
pub(crate) fn announced(bytes: [u8; 4], longest: usize) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(bytes));
    let length = length.ok().filter(|length| *length <= longest);
    length.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Writes one frame.
pub(crate) fn write(to: &mut impl Write, frame: &[u8], longest: usize) -> io::Result<()> {
    to.write_all(&length(frame, longest)?)?;
    to.write_all(frame)?;
    to.flush()
}

/// Reads one frame into `frame`; false at the end of the input.
pub(crate) fn read(from: &mut impl Read, frame: &mut Vec<u8>, longest: usize) -> io::Result<bool> {
    let mut bytes = [0; 4];
    match from.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        outcome => outcome?,
    }
    frame.resize(announced(bytes, longest)?, 0);
    from.read_exact(frame)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let mut line = Vec::new();
        for frame in [b"first".as_slice(), b"", b"third"] {
            write(&mut line, frame, 5).unwrap();
        }
        let (mut from, mut frame) = (line.as_slice(), Vec::new());
        for expected in [b"first".as_slice(), b"", b"third"] {
            assert!(read(&mut from, &mut frame, 5).unwrap());
            assert_eq!(frame, expected);
        }
        assert!(!read(&mut from, &mut frame, 5).unwrap());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_on_both_sides() {
        assert!(write(&mut Vec::new(), b"123456", 5).is_err());
        let mut line = Vec::new();
        write(&mut line, b"123456", 6).unwrap();
        assert!(read(&mut line.as_slice(), &mut Vec::new(), 5).is_err());
        assert!(read(&mut [255, 255, 255, 255].as_slice(), &mut Vec::new(), 5).is_err());
    }

    #[test]
    fn a_frame_that_breaks_off_is_an_error() {
        let mut line = Vec::new();
        write(&mut line, b"12345", 5).unwrap();
        line.truncate(6);
        assert!(read(&mut line.as_slice(), &mut Vec::new(), 5).is_err());
    }
}
