//! The connection of a group: c10d's Gloo or NCCL.

use crate::error::{DistError, Result};
use crate::ffi::{
    Message, RawGroup, RawWork, checked, gateloop_group_all_gather, gateloop_group_all_reduce,
    gateloop_group_barrier, gateloop_group_broadcast, gateloop_group_free, gateloop_group_new,
    gateloop_reduce_max, gateloop_reduce_min, gateloop_reduce_sum, gateloop_work_free,
    gateloop_work_wait,
};
use crate::group::Reduce;
use crate::health::Health;
use crate::store::{Store, millis, text};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tch::Tensor;

/// The connection to the other ranks of a group.
#[derive(Debug)]
pub(crate) struct Link {
    raw: *mut RawGroup,
    /// Operations are begun one at a time, whichever threads they come from.
    begin: Mutex<()>,
    health: Arc<Health>,
    own_rank: usize,
}

// SAFETY: the backend is used under `begin`; c10d's own threads do the rest.
unsafe impl Send for Link {}
// SAFETY: as above.
unsafe impl Sync for Link {}

impl Drop for Link {
    fn drop(&mut self) {
        // A backend with an operation that cannot end would be waited for until its timeout.
        if !self.health.has_failed() {
            // SAFETY: made in `connect`, freed once; every `Work` holds the link.
            unsafe { gateloop_group_free(self.raw) }
        }
    }
}

/// How a group is connected.
pub(crate) struct Connection<'a> {
    pub(crate) store: &'a Store,
    pub(crate) health: &'a Arc<Health>,
    /// Apart from those of other groups.
    pub(crate) name: &'a str,
    pub(crate) timeout: Duration,
    pub(crate) is_nccl: bool,
    pub(crate) device: usize,
    /// This rank among all.
    pub(crate) own_rank: usize,
}

impl Link {
    /// The connection of member `rank` of a group of `size`.
    pub(crate) fn connect(
        connection: &Connection<'_>,
        rank: usize,
        size: usize,
    ) -> Result<Arc<Self>> {
        let Connection { store, health, timeout, is_nccl, device, own_rank, .. } = *connection;
        let operation = "connecting to the other ranks";
        let number = health.begin(operation);
        let prefix = text(&store.prefix(connection.name));
        let mut raw = ptr::null_mut();
        // SAFETY: a live store and string, and a place for the result.
        let made = unsafe {
            checked(gateloop_group_new(
                store.as_ptr(),
                prefix.as_ptr(),
                rank as i32,
                size as i32,
                millis(timeout),
                is_nccl,
                device as i32,
                &raw mut raw,
            ))
        };
        health.end();
        made.map_err(|message| {
            let culprits = health.culprits(number);
            DistError::Operation { rank: own_rank, operation, number, culprits, message }
        })?;
        Ok(Arc::new(Self { raw, begin: Mutex::new(()), health: Arc::clone(health), own_rank }))
    }

    pub(crate) fn all_reduce(self: &Arc<Self>, tensor: &Tensor, reduce: Reduce) -> Result<Pending> {
        // SAFETY: no pointers.
        let operation = unsafe {
            match reduce {
                Reduce::Sum => gateloop_reduce_sum(),
                Reduce::Max => gateloop_reduce_max(),
                Reduce::Min => gateloop_reduce_min(),
            }
        };
        self.start("all_reduce", |raw, out| {
            // SAFETY: a live group and tensor, and a place for the result; c10d keeps the tensor.
            unsafe { gateloop_group_all_reduce(raw, tensor.as_ptr(), operation, out) }
        })
    }

    pub(crate) fn broadcast(self: &Arc<Self>, tensor: &Tensor, root: usize) -> Result<Pending> {
        self.start("broadcast", |raw, out| {
            // SAFETY: as in `all_reduce`.
            unsafe { gateloop_group_broadcast(raw, tensor.as_ptr(), root as i32, out) }
        })
    }

    pub(crate) fn all_gather(self: &Arc<Self>, gathered: &Tensor, own: &Tensor) -> Result<Pending> {
        self.start("all_gather", |raw, out| {
            // SAFETY: as in `all_reduce`.
            unsafe { gateloop_group_all_gather(raw, gathered.as_ptr(), own.as_ptr(), out) }
        })
    }

    pub(crate) fn barrier(self: &Arc<Self>) -> Result<Pending> {
        // SAFETY: a live group, and a place for the result.
        self.start("barrier", |raw, out| unsafe { gateloop_group_barrier(raw, out) })
    }

    /// Begins an operation that `call` hands to c10d.
    fn start(
        self: &Arc<Self>,
        operation: &'static str,
        call: impl FnOnce(*mut RawGroup, *mut *mut RawWork) -> Message,
    ) -> Result<Pending> {
        let mut raw = ptr::null_mut();
        let _alone = self.begin.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.health.begin(operation);
        // SAFETY: what `call` returns is a message of the bridge.
        let begun = unsafe { checked(call(self.raw, &raw mut raw)) };
        let pending = Pending { raw, operation, number, link: Arc::clone(self) };
        match begun {
            Ok(()) => Ok(pending),
            Err(message) => Err(self.failed(operation, number, message)),
        }
    }

    fn failed(&self, operation: &'static str, number: u64, message: String) -> DistError {
        let culprits = self.health.culprits(number);
        DistError::Operation { rank: self.own_rank, operation, number, culprits, message }
    }
}

/// An operation that has been begun.
#[derive(Debug)]
pub(crate) struct Pending {
    raw: *mut RawWork,
    operation: &'static str,
    number: u64,
    link: Arc<Link>,
}

impl Pending {
    pub(crate) fn wait(self) -> Result<()> {
        // SAFETY: the work of `start`, not freed yet.
        let waited = unsafe { checked(gateloop_work_wait(self.raw)) };
        match waited {
            Ok(()) => {
                self.link.health.end();
                Ok(())
            }
            Err(message) => Err(self.link.failed(self.operation, self.number, message)),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: made by the bridge, freed once.
            unsafe { gateloop_work_free(self.raw) }
        }
    }
}
