//! As much of a Redis client as the workload needs.

use annulus_node::net::{BoxedIo, Connector};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A connection.
pub struct Connection {
    io: BoxedIo,
    read: BytesMut,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A status or a number.
    Line(String),
    /// An error.
    Error(String),
    /// A value or none.
    Bulk(Option<Bytes>),
    /// Several values.
    Array(Vec<Bytes>),
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn open(connector: &Connector, address: String) -> io::Result<Self> {
        Ok(Self { io: connector(address).await?, read: BytesMut::new() })
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// When the connection breaks or the reply is of another kind.
    pub async fn call(&mut self, arguments: &[&[u8]]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            request.extend_from_slice(argument);
            request.extend_from_slice(b"\r\n");
        }
        self.io.write_all(&request).await?;
        self.io.flush().await?;
        match self.reply().await? {
            Begun::Whole(reply) => Ok(reply),
            Begun::Array(length) => {
                let mut values = Vec::new();
                for _ in 0..length {
                    match self.reply().await? {
                        Begun::Whole(Reply::Bulk(Some(value))) => values.push(value),
                        _ => return Err(strange()),
                    }
                }
                Ok(Reply::Array(values))
            }
        }
    }

    async fn reply(&mut self) -> io::Result<Begun> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(strange)?;
        Ok(Begun::Whole(match kind {
            "+" | ":" => Reply::Line(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            "_" => Reply::Bulk(None),
            "$" if rest == "-1" => Reply::Bulk(None),
            "$" => {
                let length: usize = rest.parse().map_err(|_| strange())?;
                while self.read.len() < length + 2 {
                    self.more().await?;
                }
                let value = self.read.split_to(length).freeze();
                self.read.advance(2);
                Reply::Bulk(Some(value))
            }
            "*" => return Ok(Begun::Array(rest.parse().map_err(|_| strange())?)),
            _ => return Err(strange()),
        }))
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.read.split_to(end);
                self.read.advance(2);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        if self.io.read_buf(&mut self.read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// A reply, or how many make one up.
enum Begun {
    Whole(Reply),
    Array(usize),
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a reply of an unknown kind")
}
