//! Faithfulness by questions (DSG), visual question answering, and statistics with intervals.
