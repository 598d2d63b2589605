"""What the flow benchmark is made of: recorded pairs with exact flow, scores, pictures."""
