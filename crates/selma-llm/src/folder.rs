//! Folders of prompts, one file a skill: [`read_prompt_folder`], [`compare_prompt_folders`].

use std::collections::BTreeMap;
use std::path::Path;

use selma_durable::DurableError;
use selma_rouge::Tokenizer;

use crate::{GenerationReport, LlmError, Prompt, PromptComparison, PromptStatistics, read_prompts};

/// The prompts of one skill in a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptSet {
    /// The skill, which the file is named after.
    pub skill: String,
    /// Its prompts.
    pub prompts: Vec<Prompt>,
    /// How they were made, if that stands beside them.
    pub report: Option<GenerationReport>,
}

impl PromptSet {
    /// Numbers of the set, under the skill's name; see [`PromptStatistics::new`].
    ///
    /// # Errors
    /// As [`PromptStatistics::new`].
    pub fn statistics(&self, tokenizer: Tokenizer) -> Result<PromptStatistics, LlmError> {
        let mut statistics = PromptStatistics::new(&self.skill, &self.prompts, tokenizer)?;
        statistics.report = self.report;
        Ok(statistics)
    }
}

/// Reads all prompts of a folder as `selma prompts` writes it, in the order of the skills' names: `SKILL.jsonl`, and
/// `SKILL.report.json` where it is there. Other files, also those of rejected prompts and journals, are left alone.
///
/// # Errors
/// [`LlmError::Durable`] if the folder or a file cannot be read, [`LlmError::NoPrompts`] if there is no file of prompts, those of
/// [`read_prompts`], and [`LlmError::Line`] for a report that is none.
pub fn read_prompt_folder(folder: &Path) -> Result<Vec<PromptSet>, LlmError> {
    let mut skills = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(DurableError::io("read", folder))?;
    for entry in entries {
        let name = entry.map_err(DurableError::io("read", folder))?.file_name();
        // Names of skills have no dot.
        if let Some(skill) = name.to_str().and_then(|name| name.strip_suffix(".jsonl"))
            && !skill.contains('.')
        {
            skills.push(skill.to_owned());
        }
    }
    if skills.is_empty() {
        return Err(LlmError::NoPrompts {
            path: folder.to_owned(),
        });
    }
    skills.sort_unstable();
    skills
        .into_iter()
        .map(|skill| {
            Ok(PromptSet {
                prompts: read_prompts(&folder.join(format!("{skill}.jsonl")))?,
                report: read_report(&folder.join(format!("{skill}.report.json")))?,
                skill,
            })
        })
        .collect()
}

/// Compares the prompts of folders skill by skill, e.g. those of two language models. A skill has a column, named after the
/// folder, for each folder that has it.
///
/// # Errors
/// Those of [`read_prompt_folder`].
pub fn compare_prompt_folders<P: AsRef<Path>>(
    folders: &[P],
    tokenizer: Tokenizer,
) -> Result<BTreeMap<String, PromptComparison>, LlmError> {
    let mut skills: BTreeMap<String, PromptComparison> = BTreeMap::new();
    for folder in folders {
        let folder = folder.as_ref();
        for set in read_prompt_folder(folder)? {
            let mut statistics = set.statistics(tokenizer)?;
            statistics.name = folder.display().to_string();
            skills.entry(set.skill).or_default().sets.push(statistics);
        }
    }
    Ok(skills)
}

fn read_report(path: &Path) -> Result<Option<GenerationReport>, LlmError> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(DurableError::io("read", path))?;
    let report = serde_json::from_slice(&bytes).map_err(|error| LlmError::Line {
        path: path.to_owned(),
        line: error.line(),
        reason: error.to_string(),
    })?;
    Ok(Some(report))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::write_prompts;

    #[test]
    fn a_folder_gives_its_skills() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let error = read_prompt_folder(dir.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("has no file of prompts, SKILL.jsonl"),
            "{error}"
        );
        for skill in ["whoops", "coco"] {
            let prompts = [Prompt::new(skill, 0, "a dog")];
            write_prompts(&path(&format!("{skill}.jsonl")), &prompts).unwrap();
        }
        fs::write(path("coco.rejected.jsonl"), "no prompt").unwrap();
        fs::write(path("coco.journal.jsonl"), "no prompt").unwrap();
        fs::write(path("notes.txt"), "no prompt").unwrap();
        fs::write(path("coco.report.json"), "{\"kept\": 1}").unwrap();
        let sets = read_prompt_folder(dir.path()).unwrap();
        let skills: Vec<&str> = sets.iter().map(|set| set.skill.as_str()).collect();
        assert_eq!(skills, ["coco", "whoops"]);
        assert_eq!(sets[0].report.unwrap().kept, 1);
        assert_eq!((sets[1].report, sets[1].prompts.len()), (None, 1));
        let statistics = sets[0].statistics(Tokenizer::Rouge).unwrap();
        assert_eq!((statistics.name.as_str(), statistics.prompts), ("coco", 1));
        assert_eq!(statistics.report, sets[0].report);

        fs::write(path("coco.report.json"), "{\n\"kept\": -1}").unwrap();
        let error = read_prompt_folder(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("coco.report.json, line 2: invalid value"),
            "{error}"
        );
        assert!(read_prompt_folder(&path("none")).is_err());
    }

    #[test]
    fn folders_are_compared_skill_by_skill() {
        let dir = tempfile::tempdir().unwrap();
        let folders = [dir.path().join("a"), dir.path().join("b")];
        for (folder, skills) in folders.iter().zip([&["coco"][..], &["coco", "tea"]]) {
            fs::create_dir(folder).unwrap();
            for skill in skills {
                let path = folder.join(format!("{skill}.jsonl"));
                write_prompts(&path, &[Prompt::new(skill, 0, "a dog")]).unwrap();
            }
        }
        let compared = compare_prompt_folders(&folders, Tokenizer::Rouge).unwrap();
        let columns: Vec<(&str, Vec<&str>)> = compared
            .iter()
            .map(|(skill, comparison)| {
                let names = comparison.sets.iter().map(|set| set.name.as_str());
                (skill.as_str(), names.collect())
            })
            .collect();
        let [a, b] = folders.each_ref().map(|folder| folder.to_str().unwrap());
        assert_eq!(columns, [("coco", vec![a, b]), ("tea", vec![b])]);
        assert!(compare_prompt_folders(&[dir.path()], Tokenizer::Rouge).is_err());
    }
}
