//! Where everything lies in a plan's buffer, said once: the host fills plans by these tables, and the constants by which
//! kernels read them are made from the same tables.
//!
//! ```text
//! header     counts, then the word at which each section starts
//! sections   arrays of words, one after the other
//! ```

use std::fmt::Write;

use model::BatchLimits;

/// A number in the header. `T` tokens, `S` sequences, `W` wanted rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// `T`.
    Tokens,
    /// `S`.
    Seqs,
    /// `W`.
    WantedRows,
    /// Runs of rows that attention takes.
    Runs,
    /// Pages of each row of the block tables: what the step's longest context needs, so that short contexts upload little.
    Blocks,
    /// Tokens of a page.
    PageSize,
}

/// An array of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// `[T]`.
    TokenIds,
    /// `[T]`.
    Positions,
    /// `[T]`.
    SlotMapping,
    /// `[T]`.
    SeqOfRow,
    /// `[S + 1]`.
    CuSeqlensQ,
    /// `[S]`.
    ContextLens,
    /// `[S, blocks]`.
    BlockTables,
    /// `[W]`.
    WantedRows,
    /// `[runs, RUN_WORDS]`: a run's sequence, its first row, its rows.
    Runs,
}

/// Words of a run.
pub(crate) const RUN_WORDS: usize = 3;

/// The numbers in the order in which they lie, and what kernels call the word of each.
const COUNTS: [(Count, &str); 6] = [
    (Count::Tokens, "PLAN_NUM_TOKENS"),
    (Count::Seqs, "PLAN_NUM_SEQS"),
    (Count::WantedRows, "PLAN_NUM_WANTED_ROWS"),
    (Count::Runs, "PLAN_NUM_RUNS"),
    (Count::Blocks, "PLAN_NUM_BLOCKS"),
    (Count::PageSize, "PLAN_PAGE_SIZE"),
];

/// The sections in the order in which they lie, and what kernels call the word that has the start of each.
const SECTIONS: [(Section, &str); 9] = [
    (Section::TokenIds, "PLAN_TOKEN_IDS"),
    (Section::Positions, "PLAN_POSITIONS"),
    (Section::SlotMapping, "PLAN_SLOT_MAPPING"),
    (Section::SeqOfRow, "PLAN_SEQ_OF_ROW"),
    (Section::CuSeqlensQ, "PLAN_CU_SEQLENS_Q"),
    (Section::ContextLens, "PLAN_CONTEXT_LENS"),
    (Section::BlockTables, "PLAN_BLOCK_TABLES"),
    (Section::WantedRows, "PLAN_WANTED_ROWS"),
    (Section::Runs, "PLAN_RUNS"),
];

/// Words of the header.
pub(crate) const HEADER_WORDS: usize = COUNTS.len() + SECTIONS.len();

impl Count {
    /// The number's word.
    pub fn word(self) -> usize {
        COUNTS.iter().position(|(count, _)| *count == self).expect("every number is in the table")
    }
}

impl Section {
    /// The word that has the section's start.
    pub fn word(self) -> usize {
        let idx = SECTIONS.iter().position(|(section, _)| *section == self);
        COUNTS.len() + idx.expect("every section is in the table")
    }

    /// Most words of the section in any step within the limits.
    pub fn max_words(self, limits: BatchLimits) -> usize {
        match self {
            Self::TokenIds | Self::Positions | Self::SlotMapping | Self::SeqOfRow => limits.max_tokens,
            Self::CuSeqlensQ => limits.max_seqs + 1,
            Self::ContextLens => limits.max_seqs,
            Self::BlockTables => limits.max_seqs * limits.max_blocks,
            // Every row may be wanted for its hidden state, however few may be for their logits.
            Self::WantedRows => limits.max_tokens,
            // Of one row each, at worst.
            Self::Runs => RUN_WORDS * limits.max_tokens,
        }
    }
}

/// Most words of a plan for any step within the limits.
pub(crate) fn max_words(limits: BatchLimits) -> usize {
    HEADER_WORDS + SECTIONS.iter().map(|(section, _)| section.max_words(limits)).sum::<usize>()
}

/// The kernels' constants: the word of each number and of each section's start.
pub(crate) fn wgsl() -> String {
    let names = COUNTS.iter().map(|(_, name)| name).chain(SECTIONS.iter().map(|(_, name)| name));
    let mut text =
        String::from("// The words of the plan's header: counts, then the start of each section.\n");
    for (word, name) in names.enumerate() {
        writeln!(text, "const {name} = {word}u;").expect("a string takes all text");
    }
    writeln!(text, "const RUN_WORDS = {RUN_WORDS}u;").expect("a string takes all text");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_name_the_words_that_the_host_writes() {
        let text = wgsl();
        for (name, word) in [
            ("PLAN_NUM_TOKENS", Count::Tokens.word()),
            ("PLAN_PAGE_SIZE", Count::PageSize.word()),
            ("PLAN_TOKEN_IDS", Section::TokenIds.word()),
            ("PLAN_RUNS", Section::Runs.word()),
        ] {
            assert!(text.contains(&format!("const {name} = {word}u;\n")), "{name} = {word} in {text}");
        }
        assert_eq!(Section::Runs.word(), HEADER_WORDS - 1);
    }
}
