"""Any teacher, the student encoder, and its initialisation from the teacher."""
