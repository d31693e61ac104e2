//! swizzle
