//! A signalling socket of the stand-ins, whatever its kind.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use sip::endpoint::Trust;
use sip::{Endpoint, Flow, Frame, StreamFramer, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::files::Capture;
use super::phone::Dial;
use crate::clock;
use crate::net::tls::ServerIdentity;

/// A signalling socket.
pub(super) struct Line {
    pub(super) flow: Flow,
    wire: Wire,
    capture: Option<Capture>,
}

enum Wire {
    Datagrams(UdpSocket),
    Stream { outgoing: mpsc::Sender<Bytes>, incoming: mpsc::Receiver<Bytes>, task: JoinHandle<()> },
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Wire::Stream { task, .. } = &self.wire {
            task.abort();
        }
    }
}

impl Line {
    /// A phone's line to the gateway.
    pub(super) async fn to_gateway(dial: &Dial) -> io::Result<Self> {
        let (wire, local) = match dial.transport {
            Transport::Udp => {
                let socket = UdpSocket::bind((dial.from, 0)).await?;
                let local = socket.local_addr()?;
                (Wire::Datagrams(socket), local)
            }
            Transport::Tcp => {
                let stream = TcpStream::connect(dial.to).await?;
                let local = stream.local_addr()?;
                (Wire::of(stream), local)
            }
            Transport::Tls => {
                let stream = TcpStream::connect(dial.to).await?;
                let local = stream.local_addr()?;
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let config = rustls::ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(io::Error::other)?
                    .with_root_certificates(dial.roots.clone())
                    .with_no_client_auth();
                let name = ServerName::from(dial.to.ip());
                let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
                (Wire::of(stream), local)
            }
        };
        let connection = u64::from(dial.transport != Transport::Udp);
        let flow = Flow { transport: dial.transport, local, remote: dial.to, connection };
        Ok(Line { flow, wire, capture: dial.capture.clone() })
    }

    /// The line of somebody who is called over UDP; the gateway's address is learnt.
    pub(super) async fn called() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let local = socket.local_addr()?;
        let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let flow = Flow { transport: Transport::Udp, local, remote, connection: 0 };
        Ok(Line { flow, wire: Wire::Datagrams(socket), capture: None })
    }

    /// The line of somebody who is called over TLS: the first connection that comes.
    pub(super) async fn accepted(
        listener: &TcpListener,
        identity: &ServerIdentity,
    ) -> io::Result<Self> {
        let (stream, remote) = listener.accept().await?;
        let local = stream.local_addr()?;
        let stream = identity.acceptor().accept(stream).await?;
        let flow = Flow { transport: Transport::Tls, local, remote, connection: 1 };
        Ok(Line { flow, wire: Wire::of(stream), capture: None })
    }

    /// Sends what waits, then waits up to `patience` for one message, then sends again.
    pub(super) async fn step(
        &mut self,
        endpoint: &mut Endpoint,
        patience: Duration,
    ) -> io::Result<()> {
        self.flush(endpoint).await?;
        let timer = endpoint.poll_timeout().map(|at| at.saturating_duration_since(clock::now()));
        let wait = timer.map_or(patience, |timer| timer.min(patience));
        if let Ok(received) = tokio::time::timeout(wait, self.receive()).await {
            let bytes = received?;
            self.note(self.flow.remote, self.flow.local, &bytes);
            endpoint.handle_message(clock::now(), self.flow, bytes, Trust::Known);
        }
        endpoint.handle_timeout(clock::now());
        self.flush(endpoint).await
    }

    async fn flush(&mut self, endpoint: &mut Endpoint) -> io::Result<()> {
        while let Some(transmit) = endpoint.poll_transmit() {
            self.note(self.flow.local, self.flow.remote, &transmit.bytes);
            match &self.wire {
                Wire::Datagrams(socket) => {
                    socket.send_to(&transmit.bytes, self.flow.remote).await?;
                }
                Wire::Stream { outgoing, .. } => {
                    outgoing.send(transmit.bytes).await.map_err(io::Error::other)?;
                }
            }
        }
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<Bytes> {
        match &mut self.wire {
            Wire::Datagrams(socket) => {
                let mut buffer = vec![0; 65_535];
                let (length, source) = socket.recv_from(&mut buffer).await?;
                self.flow.remote = source;
                buffer.truncate(length);
                Ok(buffer.into())
            }
            Wire::Stream { incoming, .. } => {
                incoming.recv().await.ok_or_else(|| io::ErrorKind::ConnectionReset.into())
            }
        }
    }

    fn note(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if let Some(capture) = &self.capture {
            capture.add(clock::unix_micros(), from, to, bytes);
        }
    }
}

impl Wire {
    /// Runs a stream on a task of its own: whole messages in, bytes out.
    fn of<S>(stream: S) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    {
        let (outgoing, mut to_send) = mpsc::channel::<Bytes>(16);
        let (arrived, incoming) = mpsc::channel::<Bytes>(16);
        let task = tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let mut framer = StreamFramer::new();
            let mut buffer = vec![0; 4096];
            loop {
                tokio::select! {
                    bytes = to_send.recv() => match bytes {
                        Some(bytes) if writer.write_all(&bytes).await.is_ok() => {}
                        _ => return,
                    },
                    read = reader.read(&mut buffer) => match read {
                        Ok(length) if length > 0 => framer.push(buffer.get(..length).unwrap_or(&[])),
                        _ => return,
                    },
                }
                if hand_on(&mut framer, &arrived).await.is_none() {
                    return;
                }
            }
        });
        Wire::Stream { outgoing, incoming, task }
    }
}

/// Hands on every message that is whole; `None` when nobody takes them any more.
async fn hand_on(framer: &mut StreamFramer, arrived: &mpsc::Sender<Bytes>) -> Option<()> {
    while let Ok(Some(frame)) = framer.next_frame() {
        if let Frame::Message(bytes) = frame {
            arrived.send(bytes).await.ok()?;
        }
    }
    Some(())
}
