"""Reports of experiments: episode records, intervals and tests, figures, pages, contact sheets, videos, albums."""
