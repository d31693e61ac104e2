//! The lab: checks of the engine against data that others computed.

pub mod golden;
