//! asciicast v3 and v2, and plain text, from frames and back.
