//! wgmma
