//! The notes that travel with a step's gradients, and with an evaluation.
//!
//! They carry what all members must agree on without an RPC: whether to halt or to take a checkpoint at the next step
//! boundary, whether a member cannot take one yet, whether the program wants the run to end, and the parts of a loss.
//! Every member combines the notes of all ranks in rank order, so all members compute the same bits and make the same
//! decision.

use std::ops::Range;

use whimbrel_plan::Generation;

const HALT: u8 = 1;
const CHECKPOINT: u8 = 2;
const BUSY: u8 = 4;
const LAST: u8 = 8;
const WEIGHTED: u8 = 16;

/// What one member tells the others in a step's all-reduce.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepNote {
    /// The coordinator asked it to halt.
    pub halt: bool,
    /// The coordinator asked it for a checkpoint.
    pub checkpoint: bool,
    /// Its slice of the previous checkpoint is still being uploaded.
    pub busy: bool,
    /// Its program wants the run to end with this step.
    pub last: bool,
    /// The part of the loss that comes from each of its shards, in order.
    pub losses: Vec<f64>,
    /// The weight of each of its shards, where the program gives them; else empty.
    pub weights: Vec<f64>,
}

/// What the notes of all members together say about a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Agreed {
    /// Some member was asked to halt: all halt.
    pub(crate) halt: bool,
    /// Some member was asked for a checkpoint: all take one.
    pub(crate) checkpoint: bool,
    /// Some member still uploads its slice of the previous checkpoint: the next one is put off.
    pub(crate) busy: bool,
    /// Some member's program wants the run to end with this step: it does.
    pub(crate) last: bool,
    /// The sum of the shards' losses, added in the order of the shards; divided by the weight where there is one.
    pub(crate) loss: f64,
    /// The sum of the shards' weights, added in the same order; `None` where the program gives none.
    pub(crate) weight: Option<f64>,
}

/// The rank whose note cannot be read, or does not fit those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadNote(pub(crate) usize);

impl StepNote {
    /// One byte of flags, then each loss as a little-endian `f64`, then each weight.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + 8 * (self.losses.len() + self.weights.len()));
        let flags = [(self.halt, HALT), (self.checkpoint, CHECKPOINT), (self.busy, BUSY), (self.last, LAST)];
        let flags = flags.into_iter().chain([(!self.weights.is_empty(), WEIGHTED)]);
        bytes.push(flags.filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag));
        bytes.extend(self.losses.iter().chain(&self.weights).flat_map(|value| value.to_le_bytes()));
        bytes
    }

    fn decode(bytes: &[u8], shards: Range<u32>) -> Option<Self> {
        let (&flags, losses) = bytes.split_first()?;
        let mut losses = values(losses)?;
        let has = |flag: u8| flags & flag != 0;
        let weights = if has(WEIGHTED) { losses.split_off(losses.len() / 2) } else { Vec::new() };
        let fits = losses.len() == shards.len() && (weights.is_empty() || weights.len() == losses.len());
        let (halt, checkpoint) = (has(HALT), has(CHECKPOINT));
        let note = Self { halt, checkpoint, busy: has(BUSY), last: has(LAST), losses, weights };
        (flags & !(HALT | CHECKPOINT | BUSY | LAST | WEIGHTED) == 0 && fits).then_some(note)
    }
}

/// Combines the notes of all ranks of step `step`.
pub(crate) fn agree(generation: &Generation, step: u64, notes: &[Vec<u8>]) -> Result<Agreed, BadNote> {
    let (mut agreed, mut shards_so_far) = (Agreed::default(), 0);
    for (rank, (bytes, shards)) in notes.iter().zip(generation.assignments(step)).enumerate() {
        let note = StepNote::decode(bytes, shards).ok_or(BadNote(rank))?;
        agreed.halt |= note.halt;
        agreed.checkpoint |= note.checkpoint;
        agreed.busy |= note.busy;
        agreed.last |= note.last;
        // Shards with a weight and shards without cannot be averaged.
        let is_first = shards_so_far == 0;
        shards_so_far += note.losses.len();
        if !note.losses.is_empty() && !is_first && agreed.weight.is_some() == note.weights.is_empty() {
            return Err(BadNote(rank));
        }
        for loss in note.losses {
            agreed.loss += loss;
        }
        for weight in note.weights {
            agreed.weight = Some(agreed.weight.unwrap_or(0.0) + weight);
        }
    }
    if let Some(weight) = agreed.weight {
        agreed.loss /= weight;
    }
    Ok(agreed)
}

/// The note of an evaluation: for each part a byte that says whether it has a value, then for each part the value or
/// zero as a little-endian `f64`.
pub fn encode_parts(parts: &[Option<f64>]) -> Vec<u8> {
    let present = parts.iter().map(|part| u8::from(part.is_some()));
    present.chain(parts.iter().flat_map(|part| part.unwrap_or(0.0).to_le_bytes())).collect()
}

/// Adds up the parts of all ranks' notes.
pub(crate) fn sum_parts(
    generation: &Generation,
    step: u64,
    notes: &[Vec<u8>],
) -> Result<Option<f64>, BadNote> {
    let mut all = Vec::with_capacity(generation.shards as usize);
    for (rank, (bytes, parts)) in notes.iter().zip(generation.assignments(step)).enumerate() {
        let parts = parts.len();
        let (present, rest) = bytes.split_at_checked(parts).ok_or(BadNote(rank))?;
        let values = values(rest).filter(|values| values.len() == parts).ok_or(BadNote(rank))?;
        all.extend(values.into_iter().zip(present).map(|(value, &present)| (present != 0).then_some(value)));
    }
    Ok(add_parts(&all))
}

/// The sum of an evaluation's parts, in the order of the parts; `None` if no part has a value.
pub fn add_parts(parts: &[Option<f64>]) -> Option<f64> {
    parts.iter().flatten().fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

fn values(bytes: &[u8]) -> Option<Vec<f64>> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| f64::from_le_bytes(*chunk)).collect())
}

#[cfg(test)]
mod tests {
    use whimbrel_plan::{Member, Origin, WorkerId, equal_shares};

    use super::*;

    fn generation(workers: usize) -> Generation {
        let address = ([127, 0, 0, 1], 1).into();
        let member = |share| Member { worker: WorkerId(1), address, share, holds: None };
        let members = equal_shares(7, workers).into_iter().map(member).collect();
        let (run, origin, key) = ("r".parse().unwrap(), Origin::Initial, [0; 32]);
        Generation { run, epoch: 1, number: 1, shards: 7, origin, members, key }
    }

    const LOSSES: [f64; 7] = [0.1, 1e16, -1e16, 0.3, 7.0, 0.2, 1e-9];

    #[test]
    fn the_loss_has_the_same_bits_for_any_membership_and_one_flag_is_enough() {
        for workers in 1..10 {
            let generation = generation(workers);
            let notes: Vec<Vec<u8>> = (0..workers)
                .map(|rank| {
                    let shards = generation.assignment(rank, 3);
                    let losses = LOSSES[shards.start as usize..shards.end as usize].to_vec();
                    let (halt, busy) = (rank == workers - 1, rank == 0);
                    StepNote { halt, checkpoint: false, busy, last: halt, losses, weights: Vec::new() }
                        .encode()
                })
                .collect();
            let agreed = agree(&generation, 3, &notes).unwrap();
            assert_eq!((agreed.halt, agreed.checkpoint, agreed.busy, agreed.last), (true, false, true, true));
            assert_eq!(agreed.loss.to_bits(), LOSSES.iter().fold(0.0, |sum, loss| sum + loss).to_bits());
        }
    }

    #[test]
    fn weights_add_up_to_the_same_bits_for_any_membership_and_all_shards_have_one_or_none() {
        let note = |losses: &[f64], weights: &[f64]| {
            StepNote { losses: losses.to_vec(), weights: weights.to_vec(), ..StepNote::default() }.encode()
        };
        let weights = [3.0, 0.0, 9007199254740992.0, 1.0, 0.25, 0.5, 1e-3];
        let total = weights.iter().fold(0.0, |sum, weight| sum + weight);
        let loss = LOSSES.iter().fold(0.0, |sum, loss| sum + loss) / total;
        for workers in 1..10 {
            let generation = generation(workers);
            let part = |rank| {
                let shards = generation.assignment(rank, 3);
                shards.start as usize..shards.end as usize
            };
            let notes: Vec<_> =
                (0..workers).map(|rank| note(&LOSSES[part(rank)], &weights[part(rank)])).collect();
            let agreed = agree(&generation, 3, &notes).unwrap();
            assert_eq!(agreed.weight.map(f64::to_bits), Some(total.to_bits()));
            assert_eq!(agreed.loss.to_bits(), loss.to_bits());
        }
        let without = note(&[1.0; 3], &[]);
        assert_eq!(agree(&generation(2), 0, &[note(&[1.0; 4], &[1.0; 4]), without]), Err(BadNote(1)));
        let with = note(&[1.0; 3], &[1.0; 3]);
        assert_eq!(agree(&generation(2), 0, &[note(&[1.0; 4], &[]), with]), Err(BadNote(1)));
    }

    #[test]
    fn parts_without_a_value_are_left_out() {
        let notes = [vec![Some(1.0), None, Some(2.5), None], vec![None; 3]].map(|parts| encode_parts(&parts));
        assert_eq!(sum_parts(&generation(2), 0, &notes), Ok(Some(3.5)));
        let nothing = [encode_parts(&[None; 4]), encode_parts(&[None; 3])];
        assert_eq!(sum_parts(&generation(2), 0, &nothing), Ok(None));
    }

    #[test]
    fn a_note_of_another_length_names_its_rank() {
        let good = StepNote { losses: vec![0.0; 4], ..StepNote::default() }.encode();
        for bad in [vec![], vec![0], vec![0; 24], vec![0; 26], vec![16; 24], vec![32; 25], vec![16; 33]] {
            assert_eq!(agree(&generation(2), 0, &[good.clone(), bad]), Err(BadNote(1)));
        }
        let good = encode_parts(&[None; 4]);
        for bad in [0, 2, 26, 28] {
            assert_eq!(sum_parts(&generation(2), 0, &[good.clone(), vec![0; bad]]), Err(BadNote(1)));
        }
    }
}
