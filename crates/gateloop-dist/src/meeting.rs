//! The ranks' meeting: the store, the signs of life, the groups.

use crate::dist::{Backend, Options};
use crate::environment::Environment;
use crate::error::{DistError, Result};
use crate::ffi::gateloop_has_nccl;
use crate::group::Group;
use crate::health::Health;
use crate::link::{Connection, Link};
use crate::rendezvous;
use crate::store::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tch::Cuda;

/// What a rank needs to work with the others.
#[derive(Debug)]
pub(crate) struct Meeting {
    store: Arc<Store>,
    health: Arc<Health>,
    environment: Environment,
    options: Options,
    /// Groups are named in the order in which they are made, which is the same on all ranks.
    groups: AtomicU64,
    /// So are topics numbered, so that nothing is read that was said on one of the same name before.
    topics: AtomicU64,
}

impl Meeting {
    pub(crate) fn has_nccl() -> bool {
        // SAFETY: no pointers.
        unsafe { gateloop_has_nccl() }
    }

    /// Meets the other ranks; the group is that of all.
    pub(crate) fn begin(environment: Environment, options: &Options) -> Result<(Self, Group)> {
        if options.backend == Backend::Nccl && !Self::has_nccl() {
            let problem = "this program was built without it; build with the feature `dist-nccl` where the headers of \
                           CUDA and NCCL are, or take `gloo`";
            return Err(DistError::Backend { name: "nccl", problem });
        }
        let store = Arc::new(Store::open(&environment, options.timeout)?);
        // One process too many must not speak for the rank that it is not, not even of its life.
        rendezvous::claim(&store, &environment)?;
        let signs = Store::connect(&environment, options.timeout)?;
        let health = Arc::new(Health::start(&environment, signs, options.beat)?);
        let (groups, topics, options) = (AtomicU64::new(0), AtomicU64::new(0), *options);
        let meeting = Self { store, health, environment, options, groups, topics };
        match meeting.world() {
            Ok(world) => Ok((meeting, world)),
            Err(error) => {
                meeting.fail(&error.to_string());
                meeting.end();
                Err(error)
            }
        }
    }

    fn world(&self) -> Result<Group> {
        let Self { store, environment, options, .. } = self;
        rendezvous::wait_for_all(store, environment, options.timeout)?;
        // Not before: the others must hear why this rank ends, and a rank whose keeper ended early would blame the keeper.
        self.check_device()?;
        self.agree("version", env!("CARGO_PKG_VERSION"))?;
        self.agree("backend", &format!("{:?}", options.backend))?;
        let members: Vec<usize> = (0..environment.world_size).collect();
        self.connect("world", &members)
    }

    /// Errs where NCCL is asked for and this rank has no GPU.
    fn check_device(&self) -> Result<()> {
        if self.options.backend != Backend::Nccl {
            return Ok(());
        }
        let problem = match usize::try_from(Cuda::device_count()).unwrap_or(0) {
            0 => {
                "no CUDA device: start the ranks where there are GPUs and their driver, or take `gloo`"
            }
            count if count <= self.environment.local_rank => {
                "fewer CUDA devices than LOCAL_RANK needs: start a rank for each of this machine's GPUs, or take `gloo`"
            }
            _ => return Ok(()),
        };
        Err(DistError::Backend { name: "nccl", problem })
    }

    pub(crate) fn local_rank(&self) -> usize {
        self.environment.local_rank
    }

    /// A group of some ranks, this one among them.
    pub(crate) fn group(&self, members: &[usize]) -> Result<Group> {
        let number = self.groups.fetch_add(1, Ordering::Relaxed);
        self.connect(&format!("group/{number}/{}", members[0]), members)
    }

    fn connect(&self, name: &str, members: &[usize]) -> Result<Group> {
        let own_rank = self.environment.rank;
        let place = members.iter().position(|rank| *rank == own_rank).unwrap_or_default();
        if members.len() == 1 {
            return Ok(Group::new(place, members, None));
        }
        let connection = Connection {
            store: &self.store,
            health: &self.health,
            name,
            timeout: self.options.timeout,
            is_nccl: self.options.backend == Backend::Nccl,
            device: self.environment.local_rank,
            own_rank,
        };
        let link = Link::connect(&connection, place, members.len())?;
        Ok(Group::new(place, members, Some(link)))
    }

    pub(crate) fn agree(&self, what: &str, value: &str) -> Result<()> {
        let Self { store, environment, options, .. } = self;
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        rendezvous::agree(store, environment, (number, what), value, options.timeout)
    }

    pub(crate) fn hear_first(&self, topic: &str, value: &str) -> Result<String> {
        let Self { store, environment, options, .. } = self;
        let number = self.topics.fetch_add(1, Ordering::Relaxed);
        rendezvous::hear_first(store, environment, (number, topic), value, options.timeout)
    }

    /// Tells the others that this rank ends, and why.
    pub(crate) fn fail(&self, reason: &str) {
        self.health.fail(reason);
    }

    /// Tells the others that this rank ends, and keeps the store for them as long as they need it.
    pub(crate) fn end(&self) {
        self.health.leave();
        if self.environment.rank == 0 && !self.environment.has_agent {
            self.health.wait_for_others();
        }
    }
}
