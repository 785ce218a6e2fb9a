//! Ranks on this machine, started by a program itself: for tests, and for trying things out without `torchrun`.

use crate::error::{DistError, Result};
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Ports that the system gives only to those who ask for them by number: Linux gives others those from 32,768 on.
const ASKED_FOR: Range<u16> = 10_240..32_768;
/// Ports from one process's first to that of the process after it.
const APART: u32 = 193;

/// A port of this machine that nobody listens on at the moment, another one with each call.
///
/// It is free until somebody asks for it: not one of those that a connection is given which begins meanwhile, and, as a
/// rule, none that this function gives in another process.
pub fn free_port() -> io::Result<u16> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(APART);
    for _ in ASKED_FOR {
        let nth = first.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed));
        let port = ASKED_FOR.start + (nth % ASKED_FOR.len() as u32) as u16;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port())
}

/// The variables that make a process rank `rank` of `world_size` on this machine.
pub fn variables(rank: usize, world_size: usize, port: u16) -> [(&'static str, String); 5] {
    [
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", world_size.to_string()),
        ("MASTER_ADDR", "127.0.0.1".to_owned()),
        ("MASTER_PORT", port.to_string()),
    ]
}

/// How a rank ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None` if it had to be killed because time was up.
    pub status: Option<ExitStatus>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ended {
    /// Whether it ended by itself and well.
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Processes that are ranks. Those that still run are killed when this is dropped.
#[derive(Debug)]
pub struct Ranks(Vec<Rank>);

#[derive(Debug)]
struct Rank {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Ranks {
    /// Starts `size` ranks that meet on `port`; `command` makes the command of each, which gets the
    /// [`variables`] and no input.
    pub fn start(size: usize, port: u16, command: impl Fn(usize) -> Command) -> Result<Self> {
        let mut ranks = Self(Vec::new());
        for rank in 0..size {
            let mut command = command(rank);
            command.envs(variables(rank, size, port)).stdin(Stdio::null());
            ranks.push(command)?;
        }
        Ok(ranks)
    }

    /// Starts one more process, as the command says.
    pub fn push(&mut self, mut command: Command) -> Result<()> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (rank, action) = (self.0.len(), "started");
        let mut child =
            command.spawn().map_err(|source| DistError::Process { rank, action, source })?;
        // Read all the time, so that no rank waits for a full pipe.
        let (stdout, stderr) = (child.stdout.take().map(reader), child.stderr.take().map(reader));
        self.0.push(Rank { child, stdout, stderr });
        Ok(())
    }

    /// The process number of a rank.
    pub fn id(&self, rank: usize) -> Option<u32> {
        self.0.get(rank).map(|rank| rank.child.id())
    }

    /// Kills a rank, as a machine that fails does.
    pub fn kill(&mut self, rank: usize) -> Result<()> {
        let Some(place) = self.0.get_mut(rank) else { return Ok(()) };
        place.child.kill().map_err(|source| DistError::Process { rank, action: "killed", source })
    }

    /// Whether a rank has ended.
    pub fn has_ended(&mut self, rank: usize) -> Result<bool> {
        let Some(place) = self.0.get_mut(rank) else { return Ok(true) };
        let status = place.child.try_wait();
        let status =
            status.map_err(|source| DistError::Process { rank, action: "watched", source });
        status.map(|status| status.is_some())
    }

    /// Waits for all of them, at most so long.
    pub fn wait(self, limit: Duration) -> Result<Vec<Ended>> {
        let all: Vec<usize> = (0..self.0.len()).collect();
        self.wait_for(&all, limit)
    }

    /// Waits for some of them, at most so long; the others are then killed if they still run.
    pub fn wait_for(mut self, ranks: &[usize], limit: Duration) -> Result<Vec<Ended>> {
        let deadline = Instant::now() + limit;
        let failed = |rank| move |source| DistError::Process { rank, action: "waited for", source };
        for rank in ranks {
            if let Some(place) = self.0.get_mut(*rank) {
                place.wait_until(deadline).map_err(failed(*rank))?;
            }
        }
        let mut ended = Vec::new();
        for (rank, mut place) in std::mem::take(&mut self.0).into_iter().enumerate() {
            let status = place.wait_until(Instant::now()).map_err(failed(rank))?;
            let text = |reader: Option<JoinHandle<String>>| {
                reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
            };
            let (stdout, stderr) = (text(place.stdout.take()), text(place.stderr.take()));
            ended.push(Ended { status, stdout, stderr });
        }
        Ok(ended)
    }
}

impl Rank {
    fn wait_until(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_call_gives_another_port_that_only_who_asks_gets() {
        let taken: Vec<TcpListener> = (0..20)
            .map(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, free_port().unwrap())).unwrap())
            .collect();
        let ports: HashSet<u16> =
            taken.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), taken.len());
        assert!(ports.iter().all(|port| ASKED_FOR.contains(port)), "{ports:?}");
        assert!(!ports.contains(&free_port().unwrap()));
    }
}
