//! Which rank this process is: what torchrun and job schedulers say in environment variables.

use crate::error::{DistError, Result};
use std::str::FromStr;

/// The place of a process among the ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `RANK`: its number, from 0.
    pub rank: usize,
    /// `WORLD_SIZE`: how many ranks there are.
    pub world_size: usize,
    /// `LOCAL_RANK`: its number among those of its machine, which is the number of its GPU.
    pub local_rank: usize,
    /// `MASTER_ADDR`: where the ranks meet.
    pub master_addr: String,
    /// `MASTER_PORT`
    pub master_port: u16,
    /// `TORCHELASTIC_USE_AGENT_STORE`: whether torchrun itself keeps the store there, and not rank 0.
    pub has_agent: bool,
    /// `TORCHELASTIC_RESTART_COUNT`, where there is an agent: which attempt of the run this is. The agent's store still holds
    /// what the attempt before wrote.
    pub attempt: u32,
}

impl Environment {
    /// From this process's environment; `None` where it says nothing of ranks, or that there is one.
    ///
    /// # Errors
    /// [`DistError::Environment`] for what is not a number, not in range, or missing beside the others.
    pub fn read() -> Result<Option<Self>> {
        Self::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// Whether torchrun has started this program before, and again because a rank ended: `TORCHELASTIC_RESTART_COUNT` is
    /// not 0. So it is on one rank, too.
    pub fn is_restart() -> bool {
        std::env::var("TORCHELASTIC_RESTART_COUNT").is_ok_and(|count| count.trim() != "0")
    }

    fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let world_size: usize = match number("WORLD_SIZE", get)? {
            Some(world_size) => world_size,
            None if get("RANK").is_some() => return Err(missing("WORLD_SIZE", "RANK")),
            None => return Ok(None),
        };
        let rank: usize = number("RANK", get)?.ok_or_else(|| missing("RANK", "WORLD_SIZE"))?;
        if rank >= world_size {
            return Err(DistError::Environment {
                variable: "RANK",
                value: rank.to_string(),
                problem: format!(
                    "ranks go from 0 to WORLD_SIZE - 1, and WORLD_SIZE is {world_size}"
                ),
            });
        }
        if world_size == 1 {
            return Ok(None);
        }
        let has_agent = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
        let restarts = number("TORCHELASTIC_RESTART_COUNT", get)?.filter(|_| has_agent);
        Ok(Some(Self {
            rank,
            world_size,
            local_rank: number("LOCAL_RANK", get)?.unwrap_or(0),
            master_addr: get("MASTER_ADDR").ok_or_else(|| missing("MASTER_ADDR", "WORLD_SIZE"))?,
            master_port: number("MASTER_PORT", get)?
                .ok_or_else(|| missing("MASTER_PORT", "WORLD_SIZE"))?,
            has_agent,
            attempt: restarts.unwrap_or(0),
        }))
    }
}

fn number<T: FromStr>(
    variable: &'static str,
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<T>> {
    let Some(value) = get(variable) else { return Ok(None) };
    if let Ok(number) = value.trim().parse() {
        return Ok(Some(number));
    }
    let problem = "a whole number in range is needed".to_owned();
    Err(DistError::Environment { variable, value, problem })
}

fn missing(variable: &'static str, beside: &str) -> DistError {
    DistError::Environment {
        variable,
        value: String::new(),
        problem: format!("it is not set, but {beside} is: set both, as torchrun does, or neither"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Environment>> {
        Environment::from_variables(&|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const PLAIN: [(&str, &str); 4] = [
        ("RANK", "1"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "localhost"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn one_process_has_no_ranks() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
        // torchrun sets these for a shell of its own, too.
        assert_eq!(read(&[("MASTER_ADDR", "localhost"), ("LOCAL_RANK", "0")]).unwrap(), None);
    }

    #[test]
    fn plain_variables_and_those_of_torchrun_are_read() {
        let plain = read(&PLAIN).unwrap().unwrap();
        assert_eq!((plain.rank, plain.world_size, plain.local_rank), (1, 2, 0));
        assert_eq!((plain.master_addr.as_str(), plain.master_port), ("localhost", 29500));
        assert!(!plain.has_agent);

        let torchrun = [
            ("LOCAL_RANK", "1"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ];
        let torchrun = read(&[&PLAIN[..], &torchrun].concat()).unwrap().unwrap();
        assert_eq!((torchrun.local_rank, torchrun.has_agent), (1, true));
        assert_eq!(torchrun.attempt, 2);
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (changed, value, named) in [
            ("RANK", "2", "RANK=2: ranks go from 0 to WORLD_SIZE - 1, and WORLD_SIZE is 2"),
            ("RANK", "-1", "RANK=-1: a whole number"),
            ("WORLD_SIZE", "two", "WORLD_SIZE=two: a whole number"),
            ("WORLD_SIZE", "0", "RANK=1: ranks go from 0"),
            ("MASTER_PORT", "65536", "MASTER_PORT=65536: a whole number"),
            ("LOCAL_RANK", "x", "LOCAL_RANK=x"),
        ] {
            let others = PLAIN.iter().copied().filter(|(name, _)| *name != changed);
            let variables: Vec<_> = others.chain([(changed, value)]).collect();
            let error = read(&variables).unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
        for left_out in PLAIN.map(|(name, _)| name) {
            let variables: Vec<_> =
                PLAIN.into_iter().filter(|(name, _)| *name != left_out).collect();
            let error = read(&variables).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{left_out}=: it is not set")), "{error}");
        }
    }
}
