//! What a run tells about itself: `metrics.jsonl`, TensorBoard event files, `report.html`.

mod chart;
mod jsonl;
mod report;
mod tensorboard;
mod throughput;

pub use jsonl::{FILE_NAME, MetricsLog, Record, read_records};
pub use report::Report;
pub use tensorboard::EventWriter;
pub use throughput::Throughput;
