//! What is measured: works, and the sides that do each.

pub(crate) mod models;
pub(crate) mod scans;

/// Which program does a side's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// Ours, as the tree is.
    Ours,
    /// Ours, as an earlier revision was.
    Base,
    Jax,
    Torch,
}

/// What a side is to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ours,
    /// An earlier revision of ours.
    Base,
    Peer,
    /// What no program can beat: the same traffic without arithmetic, the matrix products alone.
    Limit,
}

/// One way to do a work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side {
    /// As in keys and records.
    pub(crate) name: &'static str,
    /// As in documents.
    pub(crate) title: &'static str,
    pub(crate) role: Role,
    pub(crate) who: Who,
}

const fn side(name: &'static str, title: &'static str, role: Role, who: Who) -> Side {
    Side { name, title, role, who }
}

impl Side {
    pub(crate) const OURS: Self = side("ours", "GateLoop in Rust", Role::Ours, Who::Ours);
    pub(crate) const BASE: Self = side("base", "the base revision", Role::Base, Who::Base);
    const SCALAR: Self = side("scalar", "plain Rust loop, one thread", Role::Peer, Who::Ours);
    const NAIVE: Self = side("naive", "our ground truth", Role::Peer, Who::Ours);
    const TRIAD: Self = side("triad", "the same traffic", Role::Limit, Who::Ours);
    const TRIAD_NT: Self =
        side("triad-nt", "the same traffic, non-temporal stores", Role::Limit, Who::Ours);
    const PRODUCT: Self = side("product", "its matrix products alone", Role::Limit, Who::Ours);
    const READ: Self = side("read", "reading the weights", Role::Limit, Who::Ours);
    const JAX_ASSOCIATIVE: Self =
        side("jax-associative", "jax.lax.associative_scan, jitted", Role::Peer, Who::Jax);
    const JAX_SCAN: Self = side("jax-scan", "jax.lax.scan, jitted", Role::Peer, Who::Jax);
    const TORCH_ASSOCIATIVE: Self =
        side("torch-associative", "torch associative_scan, torch.compile", Role::Peer, Who::Torch);
    const REFERENCE: Self = side("reference", "PyTorch reference", Role::Peer, Who::Torch);
    const REFERENCE_CHECKPOINTED: Self =
        side("reference-checkpointed", "PyTorch reference, recomputing", Role::Peer, Who::Torch);

    /// What the worker knows the side by.
    pub(crate) fn key(self, work: &str) -> String {
        let name = if self.role == Role::Base { Self::OURS.name } else { self.name };
        format!("{work}@{name}")
    }
}

/// What a sample is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// Seconds, of a run or of a token.
    Time,
    /// Bytes at the peak, of a process of its own.
    Memory,
}

/// The tables of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Limits,
    Scan,
    /// Against T, against C.
    Sweep,
    Layer,
    Training,
    Memory,
    Growth,
    Generation,
}

/// One row of comparison: the same work by several sides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Work {
    /// As in keys; `memory/` stands before the name of a work whose memory is measured.
    pub(crate) name: String,
    pub(crate) group: Group,
    pub(crate) quantity: Quantity,
    pub(crate) sides: Vec<Side>,
    /// Part of `--quick`.
    pub(crate) quick: bool,
    /// Works of one name are compared with each other, and so sampled in turn like the sides of one work: a machine
    /// changes within minutes.
    pub(crate) beside: Option<&'static str>,
}

impl Work {
    fn time(group: Group, name: impl Into<String>, sides: &[Side]) -> Self {
        let quantity = Quantity::Time;
        let (name, sides) = (name.into(), sides.to_vec());
        Self { name, group, quantity, sides, quick: false, beside: None }
    }

    fn memory(group: Group, of: &str, sides: &[Side]) -> Self {
        let name = format!("memory/{of}");
        Self { quantity: Quantity::Memory, ..Self::time(group, name, sides) }
    }

    fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    fn beside(self, name: &'static str) -> Self {
        Self { beside: Some(name), ..self }
    }

    /// Whether the two are sampled in turn.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.beside.is_some() && self.beside == other.beside
    }

    /// What the workers know the work by.
    pub(crate) fn key(&self) -> &str {
        self.name.strip_prefix("memory/").unwrap_or(&self.name)
    }
}

/// Which part of everything is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Selection<'a> {
    pub(crate) quick: bool,
    pub(crate) only: &'a str,
    pub(crate) peers: bool,
    pub(crate) base: bool,
}

/// The works of a selection, those that bear the most first.
pub(crate) fn works(selection: Selection<'_>) -> Vec<Work> {
    let mut works = scans::limits();
    works.extend(scans::shapes());
    works.extend(models::layers());
    works.extend(models::training());
    works.extend(models::generation());
    works.extend(models::memory());
    works.extend(models::growth());
    works.extend(scans::sweeps());
    works.retain(|work| work.name.contains(selection.only) && (work.quick || !selection.quick));
    for work in &mut works {
        work.sides.retain(|side| selection.peers || !matches!(side.who, Who::Jax | Who::Torch));
        // It takes a quarter of a minute to compile.
        work.sides.retain(|side| !selection.quick || *side != Side::TORCH_ASSOCIATIVE);
        if let Some(ours) = work.sides.iter().position(|side| side.role == Role::Ours)
            && selection.base
        {
            work.sides.insert(ours + 1, Side::BASE);
        }
    }
    works
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Selection<'_> = Selection { quick: false, only: "", peers: true, base: false };

    #[test]
    fn names_and_sides_are_unique() {
        let works = works(ALL);
        for (index, work) in works.iter().enumerate() {
            assert!(works[..index].iter().all(|other| other.name != work.name), "{}", work.name);
            for (index, side) in work.sides.iter().enumerate() {
                assert!(work.sides[..index].iter().all(|other| other.name != side.name));
            }
        }
    }

    #[test]
    fn a_selection_leaves_out_what_was_not_asked_for() {
        let few = works(Selection { only: "layer/", ..ALL });
        assert!(!few.is_empty() && few.iter().all(|work| work.name.contains("layer/")));
        let ours = works(Selection { peers: false, base: true, ..ALL });
        assert!(ours.iter().flat_map(|work| &work.sides).all(|side| side.who != Who::Jax));
        let scan = ours.iter().find(|work| work.name.starts_with("scan/")).unwrap();
        assert_eq!(scan.sides[..2], [Side::OURS, Side::BASE]);
        assert!(works(Selection { quick: true, ..ALL }).len() < works(ALL).len());
    }

    #[test]
    fn the_base_revision_is_asked_for_its_own_work() {
        assert_eq!(Side::BASE.key("scan/x"), "scan/x@ours");
        let memory = Work::memory(Group::Memory, "train/max-heads", &[Side::OURS]);
        assert_eq!(
            (memory.name.as_str(), memory.key()),
            ("memory/train/max-heads", "train/max-heads")
        );
    }
}
