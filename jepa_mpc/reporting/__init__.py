"""Reports of experiments: records of episodes, intervals and tests, figures, pages, contact sheets, films, albums."""
