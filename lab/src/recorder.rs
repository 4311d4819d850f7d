//! A TCP proxy in front of a Redis that keeps what was said: each command with the reply it had. It
//! changes nothing, and all it knows of RESP2 is where a value ends.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use weir_core::codec::resp::Replies;

/// A batch of 64 requests is about 30 KB.
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// One command and what came of it. Those of one connection come in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Counts from 0, in the order of connecting.
    pub connection: usize,
    pub command: Vec<u8>,
    /// None where the server's end came before.
    pub reply: Option<Vec<u8>>,
}

/// Cuts a stream into its RESP2 values.
#[derive(Default)]
struct Cutter {
    scanner: Replies,
    value: Vec<u8>,
}

// === impl Recorder ===

impl Recorder {
    /// On a free port. The receiver ends when the recorder is dropped and every connection closed.
    pub fn start(server: SocketAddr) -> Result<(Recorder, Receiver<Exchange>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (exchanges, recorded) = mpsc::channel();
        let accepting = {
            let stopped = Arc::clone(&stopped);
            thread::spawn(move || {
                for (connection, client) in listener.incoming().enumerate() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    // A client that cannot be connected sees its connection closed.
                    if let Ok(client) = client {
                        let _ = connect(connection, client, server, exchanges.clone());
                    }
                }
            })
        };
        let recorder = Recorder {
            address,
            stopped,
            accepting: Some(accepting),
        };
        Ok((recorder, recorded))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes it, so that it sees that it is stopped.
        let woken = TcpStream::connect(self.address);
        if let (Ok(_), Some(accepting)) = (woken, self.accepting.take()) {
            let _ = accepting.join();
        }
    }
}

fn connect(
    connection: usize,
    client: TcpStream,
    server: SocketAddr,
    exchanges: Sender<Exchange>,
) -> Result<()> {
    let server = TcpStream::connect(server).context("cannot connect to the server")?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let (commands, sent) = mpsc::channel();
    // A command is queued before its last byte goes out, so that no reply finds the queue empty.
    thread::spawn(move || {
        let _ = carry(&from_client, |piece, cutter| {
            cutter.cut(piece, |command| drop(commands.send(command)))?;
            (&to_server).write_all(piece)
        });
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = carry(&server, |piece, cutter| {
            // A client that has lost patience is gone; what the server did for it is not.
            let _ = (&client).write_all(piece);
            cutter.cut(piece, |reply| {
                if let Ok(command) = sent.recv() {
                    let _ = exchanges.send(Exchange {
                        connection,
                        command,
                        reply: Some(reply),
                    });
                }
            })
        });
        // Both ends: the other thread may be waiting for its client.
        let _ = client.shutdown(Shutdown::Both);
        for command in sent {
            let _ = exchanges.send(Exchange {
                connection,
                command,
                reply: None,
            });
        }
    });
    Ok(())
}

/// Hands every piece on until the stream ends.
fn carry(
    mut from: &TcpStream,
    mut hand_on: impl FnMut(&[u8], &mut Cutter) -> io::Result<()>,
) -> io::Result<()> {
    let mut cutter = Cutter::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let bytes = from.read(&mut piece)?;
        if bytes == 0 {
            return Ok(());
        }
        hand_on(&piece[..bytes], &mut cutter)?;
    }
}

// === impl Cutter ===

impl Cutter {
    fn cut(&mut self, mut piece: &[u8], mut whole: impl FnMut(Vec<u8>)) -> io::Result<()> {
        while let Some(end) = self.scanner.push_one(piece).map_err(io::Error::other)? {
            let (last, rest) = piece.split_at(end);
            self.value.extend(last);
            whole(std::mem::take(&mut self.value));
            piece = rest;
        }
        self.value.extend(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Redis;

    #[test]
    fn every_command_is_kept_with_its_reply_in_order() {
        let redis = Redis::start().unwrap();
        let (recorder, recorded) = Recorder::start(redis.address()).unwrap();
        let mut client = TcpStream::connect(recorder.address()).unwrap();
        let ping = |word: &str| format!("*2\r\n$4\r\nPING\r\n${}\r\n{word}\r\n", word.len());
        let commands = ["a", "bc", "def"].map(ping);
        // Two and a half, then the rest.
        let bytes = commands.concat().into_bytes();
        let (early, late) = bytes.split_at(bytes.len() - 9);
        client.write_all(early).unwrap();
        let mut replies = [0; 7 + 8 + 9];
        client.read_exact(&mut replies[..15]).unwrap();
        client.write_all(late).unwrap();
        client.read_exact(&mut replies[15..]).unwrap();
        assert_eq!(&replies, b"$1\r\na\r\n$2\r\nbc\r\n$3\r\ndef\r\n");

        redis.pause().unwrap();
        client.write_all(ping("never").as_bytes()).unwrap();
        let first: Vec<Exchange> = recorded.iter().take(3).collect();
        for ((exchange, command), reply) in first.iter().zip(&commands).zip(["a", "bc", "def"]) {
            assert_eq!(exchange.command, command.as_bytes());
            let reply = format!("${}\r\n{reply}\r\n", reply.len());
            assert_eq!(exchange.reply.as_deref(), Some(reply.as_bytes()));
        }
        drop((client, redis, recorder));
        let rest: Vec<Exchange> = recorded.iter().collect();
        assert_eq!(rest.len(), 1);
        assert_eq!(
            (&rest[0].command, &rest[0].reply),
            (&ping("never").into_bytes(), &None)
        );
    }
}
