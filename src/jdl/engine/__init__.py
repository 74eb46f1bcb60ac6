"""The lane engine: what runs trials side by side, decides, records and resumes."""
