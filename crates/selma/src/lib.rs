//! SELMA: recipes, runs, stages and the report, from prompts to a merged multi-skill model.
