//! What the loader hands to the model.

/// A batch of B rows of T tokens, ready for one forward and backward pass. All vectors are `[B, T]`, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Number of rows, B.
    pub rows: usize,
    /// Tokens in a row, T.
    pub seq_len: usize,
    /// Input token ids.
    pub input_ids: Vec<i32>,
    /// The token that each position must predict (already shifted by one), or [`Batch::IGNORE`] where nothing is counted.
    pub targets: Vec<i32>,
    /// The index in its row of the first token of the document that each position belongs to: attention looks back no further.
    /// Zero everywhere where a row is one document.
    pub document_starts: Vec<i32>,
    /// Global index, over the whole run, of each row's sample: keys the random numbers of dropout, however the batch is cut. `[B]`.
    pub sample_ids: Vec<u64>,
}

impl Batch {
    /// The target of a position that does not count in the loss.
    pub const IGNORE: i32 = -100;

    /// How many positions count in the loss.
    pub fn counted(&self) -> usize {
        self.targets.iter().filter(|&&t| t != Self::IGNORE).count()
    }
}
