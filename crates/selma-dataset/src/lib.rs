//! Image-text datasets on disk: ImageFolder layout, provenance, a journaled writer and a strict reader.
