//! Keys and values that all ranks see: c10d's TCPStore, kept by rank 0 or by torchrun's agent.

use crate::environment::Environment;
use crate::error::{DistError, Result};
use crate::ffi::{
    RawStore, checked, gateloop_store_claim, gateloop_store_free, gateloop_store_get,
    gateloop_store_new, gateloop_store_set,
};
use std::ffi::{CString, c_void};
use std::ptr;
use std::slice;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long the store may take to answer before its keeper counts as gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to the store. Keys are those of one attempt of a run, so that nothing of an earlier one is read.
#[derive(Debug)]
pub(crate) struct Store {
    raw: *mut RawStore,
    environment: Environment,
}

// SAFETY: c10d's TCPStore guards every operation with a lock of its own.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made in `open`, freed once.
        unsafe { gateloop_store_free(self.raw) }
    }
}

impl Store {
    /// Opens the store of a rank: rank 0 begins to keep it, unless an agent does; the others connect.
    pub(crate) fn open(environment: &Environment, timeout: Duration) -> Result<Self> {
        Self::new(environment, timeout, environment.rank == 0 && !environment.has_agent)
    }

    /// One more connection to a store that is kept.
    pub(crate) fn connect(environment: &Environment, timeout: Duration) -> Result<Self> {
        Self::new(environment, timeout, false)
    }

    fn new(environment: &Environment, timeout: Duration, keeps: bool) -> Result<Self> {
        let (own, port) = (environment.clone(), environment.master_port);
        let open = move || {
            let mut raw = ptr::null_mut();
            let host = text(&own.master_addr);
            // SAFETY: a string that lives as long as the call, and a place for the result.
            let opened = unsafe {
                let place = &raw mut raw;
                checked(gateloop_store_new(host.as_ptr(), port, keeps, millis(timeout), place))
            };
            opened.map(|()| Self { raw, environment: own })
        };
        // c10d waits for ever for a listener that does not answer.
        let unanswered = || Err(format!("no answer within {} s", timeout.as_secs_f64()));
        match within(timeout + PATIENCE, open).unwrap_or_else(unanswered) {
            Ok(store) => Ok(store),
            Err(message) if keeps && is_taken(&message) => {
                Err(DistError::PortInUse { port, message })
            }
            Err(message) => Err(store_error(environment, "connecting to it".to_owned(), message)),
        }
    }

    /// The name of a key in c10d's store, with which no other attempt's meets.
    pub(crate) fn prefix(&self, key: &str) -> String {
        format!("gateloop/{}/{key}", self.environment.attempt)
    }

    fn key(&self, key: &str) -> CString {
        text(&self.prefix(key))
    }

    pub(crate) fn set(&self, key: &str, value: &str) -> Result<()> {
        let name = self.key(key);
        // SAFETY: live strings of the stated lengths.
        let set = unsafe {
            checked(gateloop_store_set(self.raw, name.as_ptr(), value.as_ptr(), value.len()))
        };
        set.map_err(|message| store_error(&self.environment, format!("writing {key}"), message))
    }

    /// Writes the value unless the key has one, and says whether it had none.
    pub(crate) fn claim(&self, key: &str, value: &str) -> Result<bool> {
        let (name, mut was_set) = (self.key(key), false);
        // SAFETY: live strings of the stated lengths, and a place for the result.
        let claimed = unsafe {
            let (data, len) = (value.as_ptr(), value.len());
            checked(gateloop_store_claim(self.raw, name.as_ptr(), data, len, &raw mut was_set))
        };
        let claimed = claimed
            .map_err(|message| store_error(&self.environment, format!("claiming {key}"), message));
        claimed.map(|()| was_set)
    }

    /// The value of a key, if it has one by now.
    pub(crate) fn get(&self, key: &str) -> Result<Option<String>> {
        extern "C" fn take(place: *mut c_void, data: *const u8, len: usize) {
            // SAFETY: the place is the one given below; the data is valid for the call, and may be null if there is none.
            unsafe {
                let bytes = if len == 0 { &[] } else { slice::from_raw_parts(data, len) };
                *place.cast::<Option<String>>() = Some(String::from_utf8_lossy(bytes).into_owned());
            }
        }
        let (name, mut value) = (self.key(key), None::<String>);
        let place = (&raw mut value).cast();
        // SAFETY: a live string, a place of the type that `take` writes, and a function that does not unwind.
        let read = unsafe { checked(gateloop_store_get(self.raw, name.as_ptr(), place, take)) };
        read.map_err(|message| store_error(&self.environment, format!("reading {key}"), message))?;
        Ok(value)
    }

    pub(crate) fn as_ptr(&self) -> *mut RawStore {
        self.raw
    }
}

/// Runs `work` in a thread of its own; `None` if that takes longer. c10d's store waits for ever for a keeper that was
/// stopped.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    let started = thread::Builder::new().name("gateloop-store".to_owned()).spawn(move || {
        let _ = sender.send(work());
    });
    started.ok()?;
    receiver.recv_timeout(limit).ok()
}

/// Milliseconds, at least one: c10d takes none as no limit.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// A text for C, without what C cannot hold.
pub(crate) fn text(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

fn is_taken(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("eaddrinuse") || message.contains("address already in use")
}

pub(crate) fn store_error(environment: &Environment, action: String, message: String) -> DistError {
    DistError::Store {
        rank: environment.rank,
        keeper: if environment.has_agent { "torchrun's agent" } else { "rank 0" },
        host: environment.master_addr.clone(),
        port: environment.master_port,
        action,
        message,
    }
}
