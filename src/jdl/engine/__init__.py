"""The lane engine, which runs trials side by side, decides, records and resumes."""
