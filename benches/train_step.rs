//! Whole training steps of the presets at their published sizes: `cargo bench --bench train_step`.

use ferromind::lab::bench::{TrainBench, bench_train};
use ferromind::model::Preset;

fn main() -> ferromind::Result<()> {
    let tiny = TrainBench { preset: Preset::Tiny, batch_size: 4, seq_len: 512, steps: 5, vocab_size: 1482 };
    let published = |preset| TrainBench { preset, vocab_size: 6400, ..tiny };
    for bench in [tiny, published(Preset::MiniMind2), published(Preset::MiniMind2Moe), published(Preset::MiniMind3)] {
        let figures = bench_train(&bench, |_, _| {})?;
        let (millions, share) = (figures.params as f64 / 1e6, 100.0 * figures.mfu);
        println!(
            "{:?}: {millions:.1} M parameters, {:.0} tokens/s, {share:.0} % of the matrix product's speed",
            bench.preset, figures.tok_s
        );
    }
    Ok(())
}
