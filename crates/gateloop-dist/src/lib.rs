//! libtorch's distributed engine for programs that use [tch](https://docs.rs/tch): ranks that find one another, and their
//! collective operations.
//!
//! A *rank* is one process of several that run the same program; [`Dist::from_env`] finds out which one this is from the
//! environment variables that `torchrun` and job schedulers set. Without them there is one rank, and every operation is
//! free. Tensors are exchanged by c10d, which is a part of libtorch: Gloo for the CPU, NCCL (feature `nccl`) for GPUs.
//! Without the feature `c10d` the crate is the one rank alone, in plain Rust: a library can be written for ranks and leave it
//! to its users whether there are any.
//!
//! | what | where |
//! | --- | --- |
//! | the ranks of a program | [`Dist`] |
//! | collective operations, among all ranks or some | [`Group`], [`Work`] |
//! | what was sent | [`Traffic`] |
//! | what goes wrong, and which rank is to blame | [`DistError`], [`Culprit`] |
//! | ranks on one machine, without a launcher | [`local`] |
//! | tests on several ranks | [`testing`] |
//!
//! Every operation ends: with its result, or with an error that names the ranks that did not take part, at the latest
//! after [`Options::timeout`]. For NCCL that is so only if it is told to: see [`Backend::Nccl`].
//!
//! ```
//! use gateloop_dist::{Dist, Options, Reduce};
//! use tch::Tensor;
//!
//! let dist = Dist::from_env(&Options::default())?;
//! let total = Tensor::from_slice(&[1.0, 2.0]);
//! dist.world().all_reduce(&total, Reduce::Sum)?;
//! assert_eq!(total.double_value(&[0]), dist.world().size() as f64);
//! # Ok::<(), gateloop_dist::DistError>(())
//! ```

#[cfg(not(feature = "c10d"))]
mod alone;
mod dist;
mod environment;
mod error;
#[cfg(feature = "c10d")]
mod ffi;
mod group;
#[cfg(feature = "c10d")]
mod health;
#[cfg(feature = "c10d")]
mod link;
pub mod local;
#[cfg(feature = "c10d")]
mod meeting;
#[cfg(feature = "c10d")]
mod rendezvous;
#[cfg(feature = "c10d")]
mod store;
pub mod testing;
mod traffic;

/// What stands behind [`Dist`] and [`Group`]: c10d, or nothing.
mod backend {
    #[cfg(not(feature = "c10d"))]
    pub(crate) use crate::alone::{Link, Meeting, Pending};
    #[cfg(feature = "c10d")]
    pub(crate) use crate::{
        link::{Link, Pending},
        meeting::Meeting,
    };
}

pub use dist::{Backend, Dist, Options, has_nccl};
pub use environment::Environment;
pub use error::{Culprit, DistError, Result, Silence};
pub use group::{Group, Reduce, Work};
pub use traffic::Traffic;
